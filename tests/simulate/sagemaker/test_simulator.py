"""The simulator as a whole: it comes, it goes, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.simulate.sagemaker import Simulator
from modeldeploy.simulate.sagemaker import simulator as simulator_module

ROLE_POLICY = "sagemaker.amazonaws.com"


def test_two_simulators_do_not_see_each_others_things():
    with Simulator(speed=1000) as one, Simulator(speed=1000, region="eu-west-1") as two:
        one.client("s3").put_object(Bucket=one.bucket, Key="k", Body=b"1")
        assert [each["Name"] for each in two.client("s3").list_buckets()["Buckets"]] == [two.bucket]
        one.client("cloudwatch").put_metric_alarm(
            AlarmName="a", Namespace="n", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
        assert two.client("cloudwatch").describe_alarms()["MetricAlarms"] == []


def test_the_account_has_its_role_and_knows_its_caller():
    with Simulator(region="eu-west-1") as simulator:
        role = simulator.client("iam").get_role(RoleName=simulator.role.rpartition("/")[2])["Role"]
        assert role["Arn"] == simulator.role
        assert ROLE_POLICY in json.dumps(role["AssumeRolePolicyDocument"])
        assert simulator.client("sts").get_caller_identity()["Account"] == simulator.account


def test_it_can_be_started_again_and_is_empty_then():
    simulator = Simulator()
    with simulator:
        simulator.client("s3").put_object(Bucket=simulator.bucket, Key="k", Body=b"1")
    with simulator.start():
        assert "Contents" not in simulator.client("s3").list_objects_v2(Bucket=simulator.bucket)
    simulator.stop()
    with pytest.raises(ConfigurationError, match="the simulator is not running"):
        _ = simulator.url


def test_a_pace_that_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="speed is 0"):
        Simulator(speed=0)


def test_what_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(simulator_module, "_NEEDED", ("boto3", "no_such_package"))
    with pytest.raises(MissingDependencyError, match=r"no_such_package; pip install 'modeldeploy\[rehearsal\]'"):
        Simulator().start()


def test_stopping_in_the_middle_of_everything_ends_at_once(tmp_path, cloud):
    script = tmp_path / "sleep.py"
    script.write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    before = set(psutil.Process().children(recursive=True))
    with Simulator(
        speed=100, images={"sleep": (sys.executable, str(script), "{port}")}, state_dir=tmp_path / "s"
    ) as simulator:
        sm = simulator.client("sagemaker")
        sm.create_model(ModelName="m", PrimaryContainer={"Image": "sleep"}, ExecutionRoleArn=simulator.role)
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
        cloud.wait_until(lambda: set(psutil.Process().children(recursive=True)) - before, 20, what="a container")
    assert set(psutil.Process().children(recursive=True)) - before == set()
    assert list((tmp_path / "s").iterdir()) == []


def test_an_endpoint_url_of_one_does_not_take_the_key_of_another(simulator):
    with Simulator() as other:
        key = other.credentials
        session = boto3.Session(key.access_key, key.secret_key, region_name=simulator.region)
        with pytest.raises(ClientError, match="UnrecognizedClientException"):
            session.client("sagemaker", endpoint_url=simulator.url).list_models()


SERVE = """
import os, sys
from modeldeploy.simulate.sagemaker import __main__ as entry
from modeldeploy.simulate.sagemaker import images
images.MODEL_SERVER = images.Program((sys.executable, "-c", "import time; time.sleep(600)", "{port}"))
sys.exit(entry.main(["--speed", "1000"]))
"""


def started(arguments, folder):
    """Start a simulator that has its directory in ``folder``, and read what it says first."""
    environment = {**_environment(), "TMPDIR": str(folder)}
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def _environment():
    here = str(Path(__file__).resolve().parents[3])
    paths = [here] if (Path(here) / "modeldeploy").is_dir() else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}


def test_it_runs_as_a_process_of_its_own(tmp_path):
    process, said = started(["-m", "modeldeploy.simulate.sagemaker", "--region", "eu-west-1"], tmp_path)
    with process:
        session = boto3.Session(said["access_key"], said["secret_key"], region_name=said["region"])
        assert session.client("sagemaker", endpoint_url=said["url"]).list_models()["Models"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_containers_die_with_a_simulator_that_is_killed(wait_until, tmp_path):
    process, said = started(["-c", SERVE], tmp_path)
    with process:
        session = boto3.Session(said["access_key"], said["secret_key"], region_name=said["region"])
        sm = session.client("sagemaker", endpoint_url=said["url"])
        sm.create_model(ModelName="m", PrimaryContainer={"Image": "modeldeploy"}, ExecutionRoleArn=said["role"])
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
        found = wait_until(lambda: psutil.Process(process.pid).children(), 20, what="a container")
        process.kill()
        process.wait()
        _gone, alive = psutil.wait_procs(found, timeout=10)
        assert alive == []
    (left,) = tmp_path.iterdir()
    with Simulator(state_dir=tmp_path):
        (mine,) = tmp_path.iterdir()
        assert mine != left
    assert list(tmp_path.iterdir()) == []


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "modeldeploy.simulate.sagemaker", "--with-parent"])
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_can_end_with_the_process_that_started_it(tmp_path):
    process, _said = started(["-c", PARENT], tmp_path)
    with process:
        simulators = psutil.Process(process.pid).children()
        process.kill()
        _gone, alive = psutil.wait_procs(simulators, timeout=10)
        assert (len(simulators), alive) == (1, [])


FORGETFUL = """
import json, sys
from modeldeploy.simulate.sagemaker import Simulator
simulator = Simulator(speed=1000, images={"idle": (sys.executable, "-c", "import time; time.sleep(600)", "{port}")}).start()
sm = simulator.client("sagemaker")
sm.create_model(ModelName="m", PrimaryContainer={"Image": "idle"}, ExecutionRoleArn=simulator.role)
variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
print(json.dumps({"url": simulator.url}), flush=True)
"""


def test_one_that_nobody_stops_ends_with_its_program(tmp_path):
    process, _said = started(["-c", FORGETFUL], tmp_path)
    with process:
        assert process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []
