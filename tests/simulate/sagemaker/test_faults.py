"""Faults on demand: each is there while it is switched on, and only then."""

from __future__ import annotations

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from modeldeploy.simulate.sagemaker import Faults

ONCE = Config(retries={"total_max_attempts": 1})


@pytest.fixture
def faults(simulator):
    yield simulator.faults
    fresh = Faults()
    for name in (
        "throttle_every", "throttle_invocations_every", "stale_s", "lag_s", "capacity", "ping", "silent_rollback", "rollback_fails",
    ):  # fmt: skip
        setattr(simulator.faults, name, getattr(fresh, name))
    simulator.faults.drop_before.clear()
    simulator.faults.drop_after.clear()


@pytest.fixture(scope="module")
def once(simulator):
    """A client that does not ask again."""
    return simulator.client("sagemaker", config=ONCE)


def test_every_nth_call_is_throttled(once, faults):
    faults.throttle_every = 3
    codes = []
    for _number in range(6):
        try:
            once.list_models()
            codes.append("")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
    assert codes.count("ThrottlingException") == 2


def test_throttling_the_control_plane_leaves_the_runtime_alone(cloud, faults):
    cloud.serve("calm")
    faults.throttle_every = 1
    assert cloud.ask("calm") == "calm:x\n"
    faults.throttle_every, faults.throttle_invocations_every = 0, 1
    runtime = cloud.simulator.client("sagemaker-runtime", config=ONCE)
    with pytest.raises(ClientError, match="ThrottlingException"):
        runtime.invoke_endpoint(EndpointName="calm", Body=b"x")


def test_an_answer_lost_before_the_work_leaves_nothing(cloud, once, faults):
    faults.drop_before["CreateModel"] = 1
    with pytest.raises(ConnectionClosedError):
        once.create_model(
            ModelName="lost-before",
            PrimaryContainer={"Image": "echo:1"},
            ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
        )
    with pytest.raises(ClientError, match="Could not find model"):
        once.describe_model(ModelName="lost-before")
    assert cloud.model("lost-before") == "lost-before"


def test_an_answer_lost_after_the_work_leaves_what_was_made(cloud, once, faults):
    faults.drop_after["CreateModel"] = 1
    with pytest.raises(ConnectionClosedError):
        once.create_model(
            ModelName="lost-after",
            PrimaryContainer={"Image": "echo:1"},
            ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
        )
    assert once.describe_model(ModelName="lost-after")["ModelName"] == "lost-after"
    assert faults.drop_after == {"CreateModel": 0}


def test_a_client_that_asks_again_after_a_lost_answer_is_told_that_it_exists(cloud, faults):
    cloud.model("again")
    cloud.config("again", "again")
    faults.drop_after["CreateEndpoint"] = 1
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        cloud.sm.create_endpoint(EndpointName="again", EndpointConfigName="again")
    assert cloud.settled("again")["EndpointStatus"] == "InService"


def test_an_invocation_can_be_lost_after_the_model_worked(cloud, faults):
    cloud.serve("worked")
    runtime = cloud.simulator.client("sagemaker-runtime", config=ONCE)
    faults.drop_after["InvokeEndpoint"] = 1
    with pytest.raises(ConnectionClosedError):
        runtime.invoke_endpoint(EndpointName="worked", Body=b"12345")
    cloud.wait_until(lambda: "worked got 5 bytes" in cloud.lines("/aws/sagemaker/Endpoints/worked"))


def test_a_description_is_stale_for_a_while(cloud, faults, wait_until):
    cloud.serve("stale")
    faults.stale_s = 300.0
    cloud.weigh("stale", stale=2)
    assert cloud.status("stale") == "InService"
    wait_until(
        lambda: cloud.sm.describe_endpoint(EndpointName="stale")["ProductionVariants"][0]["CurrentWeight"] == 2.0
    )


def test_what_is_new_is_not_found_for_a_while(cloud, faults, wait_until):
    cloud.model("late")
    faults.lag_s = 1500.0
    cloud.config("late", "late")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        cloud.sm.create_endpoint(EndpointName="late", EndpointConfigName="late")
    wait_until(lambda: cloud.sm.list_endpoint_configs(NameContains="late")["EndpointConfigs"])
    faults.lag_s = 0.0
    assert cloud.endpoint("late", "late")["EndpointStatus"] == "InService"
