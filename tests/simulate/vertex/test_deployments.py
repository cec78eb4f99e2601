"""Deployed models: stages, real processes, the container contract, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import psutil
import pytest
from google.api_core import exceptions as told
from google.cloud import aiplatform_v1 as v1

from modeldeploy.simulate.vertex import Simulator, Timings
from modeldeploy.simulate.vertex.quotas import CPUS
from modeldeploy.simulate.vertex.world import STAGES


def _stage(cloud: Any, started: Any) -> str:
    return _stage_of(cloud.operation(started))


def _stage_of(operation: Any) -> str:
    return v1.DeployModelOperationMetadata.deserialize(operation.metadata.value).deployment_stage.name


def test_a_deployment_goes_through_the_service_s_stages(connect, wait_until, server, tmp_path):
    with Simulator(tmp_path, speed=1000, timings=Timings(stage=200.0), images={"mine": server}) as simulator:
        cloud = connect(simulator, wait_until)
        endpoint, model = cloud.endpoint(), cloud.model()
        started, seen = cloud.begin_deploy(endpoint, model, "1"), []

        def ended() -> bool:
            operation = cloud.operation(started)
            stage = _stage_of(operation)
            seen.extend([] if seen[-1:] == [stage] else [stage])
            return operation.done

        wait_until(ended, 30)
        cloud.close()
    # The asking may be slower than a stage; what is seen is in the order of the service.
    order = [*STAGES, "SUCCESSFULLY_DEPLOYED"]
    assert seen[-1] == order[-1]
    assert seen == [each for each in order if each in seen]
    assert len(seen) > 1


def test_the_traffic_split_of_a_deployment_holds_at_its_end(cloud: Any):
    endpoint = cloud.endpoint()
    first = cloud.deploy(endpoint, cloud.model(NAME="a"), "1")
    assert (first.id, first.model_version_id) == ("1", "1")
    # An empty split leaves the traffic as it was, which is none.
    assert dict(cloud.get(endpoint).traffic_split) == {}
    with pytest.raises(told.FailedPrecondition, match="doesn't have traffic_split"):
        cloud.raw(endpoint)
    cloud.split(endpoint, {"1": 100})
    second = cloud.deploy(endpoint, cloud.model(NAME="b"), split={"1": 30, "0": 70})
    assert len(second.id) == 19
    assert dict(cloud.get(endpoint).traffic_split) == {"1": 30, second.id: 70}
    assert {each.id for each in cloud.get(endpoint).deployed_models} == {"1", second.id}
    assert {cloud.by(endpoint) for _number in range(60)} == {"a", "b"}


def test_a_container_is_told_what_the_contract_says(cloud: Any):
    variables = {"MODE": "$(AIP_MODE)/$(NAME)", "PRICE": "$$(AIP_MODE)", "WHAT": "$(UNKNOWN)"}
    endpoint = cloud.serve(NAME="a", **variables)
    told_there = json.loads(cloud.raw(endpoint, {"environment": True}))
    wanted = {
        "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/go",
        "AIP_STORAGE_URI": "",
        "AIP_ENDPOINT_ID": endpoint.rpartition("/")[2],
        "AIP_DEPLOYED_MODEL_ID": "1",
        "AIP_MODE": "PREDICTION",
        "AIP_MACHINE_TYPE": "n1-standard-2",
        "AIP_PROJECT_NUMBER": cloud.simulator.project_number,
        "MODE": "PREDICTION/a",
        "PRICE": "$(AIP_MODE)",
        "WHAT": "$(UNKNOWN)",
        "STORAGE_EMULATOR_HOST": cloud.simulator.storage_url,
    }
    assert {name: told_there[name] for name in wanted} == wanted
    # Nothing of this session reaches a container but what a process needs to run.
    assert not [name for name in told_there if name.startswith(("MODELDEPLOY_", "PYTEST"))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "12345678901"}, "deployed_model.id"),
        ({"id": "a1"}, "deployed_model.id"),
        ({"model": ""}, "model is required"),
        ({"dedicated_resources": {"min_replica_count": 1}}, "machine_type is required"),
        ({"dedicated_resources": {"machine_spec": {"machine_type": "huge"}, "min_replica_count": 1}}, "not supported"),
        ({"dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-2"}}}, "at least 1"),
        (
            {
                "dedicated_resources": {
                    "machine_spec": {"machine_type": "n1-standard-2"},
                    "min_replica_count": 3,
                    "max_replica_count": 2,
                }
            },
            "max_replica_count",
        ),
        (
            {
                "dedicated_resources": {
                    "machine_spec": {"machine_type": "n1-standard-2", "accelerator_count": 1},
                    "min_replica_count": 1,
                }
            },
            "accelerator",
        ),
        ({"automatic_resources": {"min_replica_count": 1}, "dedicated_resources": None}, "dedicated_resources only"),
    ],
)
def test_what_a_deployed_model_must_not_be_is_refused(cloud: Any, change: dict[str, Any], words: str):
    endpoint = cloud.endpoint()
    wanted = {key: value for key, value in {**cloud.deployed(cloud.model()), **change}.items() if value is not None}
    with pytest.raises(told.InvalidArgument, match=words):
        cloud.endpoints.deploy_model({"endpoint": endpoint, "deployed_model": wanted}, timeout=30)
    assert not cloud.get(endpoint).deployed_models


def test_an_id_is_taken_once_on_an_endpoint(cloud: Any, faults: Any):
    endpoint, model = cloud.endpoint(), cloud.model()
    faults.stuck["DeployModel"] = 1
    started = cloud.begin_deploy(endpoint, model, "7")
    with pytest.raises(told.AlreadyExists):
        cloud.begin_deploy(endpoint, model, "7")
    cloud.wait_until(lambda: _stage(cloud, started) == "CREATING_SERVING_CLUSTER", 20)
    cloud.endpoints.cancel_operation({"name": started.operation.name}, timeout=30)
    ended = cloud.settle(started)
    assert (ended.error.code, _stage(cloud, started)) == (1, "DEPLOYMENT_TERMINATED")
    assert cloud.deploy(endpoint, model, "7").id == "7"
    with pytest.raises(told.AlreadyExists):
        cloud.begin_deploy(endpoint, model, "7")


@pytest.mark.parametrize(
    ("env", "words"), [({"CRASH": "1"}, "exited unexpectedly"), ({"HEALTH": "503"}, "never became ready")]
)
def test_a_container_that_does_not_come_up_ends_the_deployment_and_leaves_the_others(cloud, env, words):
    endpoint = cloud.serve(NAME="good")
    started = cloud.begin_deploy(endpoint, cloud.model(**env), "2", {"1": 0, "0": 100})
    error = cloud.settle(started).error
    assert (error.code, words in error.message) == (9, True)
    assert _stage(cloud, started) == "FAILED_TO_DEPLOY"
    found = cloud.get(endpoint)
    assert (dict(found.traffic_split), [each.id for each in found.deployed_models]) == ({"1": 100}, ["1"])
    assert cloud.by(endpoint) == "good"


def test_an_image_that_no_program_stands_for_is_refused_with_the_reason(cloud: Any):
    prebuilt = "europe-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest"
    for image, words in ((prebuilt, "files of its own framework"), ("docker.io/other:1", "could not be pulled")):
        found = cloud.upload(cloud.name(), container_spec=cloud.container(image=image))
        started = cloud.begin_deploy(cloud.endpoint(), found.model, "1")
        error = cloud.settle(started).error
        assert (error.code, words in error.message) == (9, True)


def test_a_model_with_traffic_is_undeployed_only_when_it_gets_none_by_that(cloud: Any):
    endpoint = cloud.serve(NAME="a")
    cloud.deploy(endpoint, cloud.model(NAME="b"), "2")
    undeploy = cloud.endpoints.undeploy_model
    with pytest.raises(told.FailedPrecondition, match="traffic"):
        undeploy({"endpoint": endpoint, "deployed_model_id": "1"}, timeout=30)
    with pytest.raises(told.InvalidArgument, match="sum up"):
        undeploy({"endpoint": endpoint, "deployed_model_id": "1", "traffic_split": {"2": 50}}, timeout=30)
    request = {"endpoint": endpoint, "deployed_model_id": "1", "traffic_split": {"2": 100}}
    cloud.done(undeploy(request, timeout=30), v1.UndeployModelResponse)
    assert dict(cloud.get(endpoint).traffic_split) == {"2": 100}
    assert cloud.by(endpoint) == "b"
    with pytest.raises(told.NotFound):
        undeploy({"endpoint": endpoint, "deployed_model_id": "1"}, timeout=30)
    # Of the last one the split is always empty in the end.
    cloud.done(undeploy({"endpoint": endpoint, "deployed_model_id": "2"}, timeout=30), v1.UndeployModelResponse)
    assert dict(cloud.get(endpoint).traffic_split) == {}


def test_a_model_that_is_deployed_cannot_be_deleted(cloud: Any):
    model = cloud.model()
    name = model.partition("@")[0]
    endpoint = cloud.endpoint()
    cloud.deploy(endpoint, model, "1")
    assert [each.deployed_model_id for each in cloud.models.get_model({"name": name}, timeout=30).deployed_models] == [
        "1"
    ]
    with pytest.raises(told.FailedPrecondition, match="undeploy"):
        cloud.models.delete_model({"name": name}, timeout=30)


def test_replicas_are_changed_and_nothing_else(connect, wait_until, server, tmp_path):

    with Simulator(tmp_path, speed=2000, processes=3, images={"mine": server}) as simulator:
        cloud = connect(simulator, wait_until)
        endpoint = cloud.serve()
        children = len(psutil.Process().children(recursive=True))
        wanted = {"id": "1", "dedicated_resources": {"min_replica_count": 2, "max_replica_count": 4}}
        paths = ["dedicated_resources.min_replica_count", "dedicated_resources.max_replica_count"]
        request = {"endpoint": endpoint, "deployed_model": wanted, "update_mask": {"paths": paths}}
        done = cloud.done(cloud.endpoints.mutate_deployed_model(request, timeout=30), v1.MutateDeployedModelResponse)
        resources = done.deployed_model.dedicated_resources
        assert (resources.min_replica_count, resources.max_replica_count) == (2, 4)
        assert resources.machine_spec.machine_type == "n1-standard-2"
        assert len(psutil.Process().children(recursive=True)) == children + 1
        machine = {"id": "1", "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-4"}}}
        request = {
            "endpoint": endpoint,
            "deployed_model": machine,
            "update_mask": {"paths": ["dedicated_resources.machine_spec"]},
        }
        with pytest.raises(told.InvalidArgument, match="cannot be changed"):
            cloud.endpoints.mutate_deployed_model(request, timeout=30)
        request = {"endpoint": endpoint, "deployed_model": {"id": "1"}, "update_mask": {"paths": ["service_account"]}}
        with pytest.raises(told.InvalidArgument, match="update_mask"):
            cloud.endpoints.mutate_deployed_model(request, timeout=30)
        cloud.close()


def test_a_replica_that_dies_is_started_again(cloud: Any, wait_until: Any):
    endpoint = cloud.serve(NAME="phoenix")
    with pytest.raises(told.ServiceUnavailable):
        cloud.raw(endpoint, {"exit": True})

    def well() -> bool:
        try:
            return cloud.by(endpoint) == "phoenix"
        except told.ServiceUnavailable:
            return False

    wait_until(well, 20)


def test_machines_are_counted_against_the_quota_at_their_most(cloud: Any, faults: Any):
    endpoint, model = cloud.endpoint(), cloud.model()
    used = sum(cloud.simulator._running._quotas._machines.values())
    faults.quota[CPUS] = used + 7
    with pytest.raises(told.ResourceExhausted, match=f"quotas are exceeded: {CPUS}"):
        cloud.begin_deploy(endpoint, model, "1", resources={"max_replica_count": 4})
    cloud.deploy(endpoint, model, "1", resources={"max_replica_count": 3})
    request = {"endpoint": endpoint, "deployed_model_id": "1"}
    cloud.done(cloud.endpoints.undeploy_model(request, timeout=30), v1.UndeployModelResponse)
    cloud.deploy(endpoint, model, "2", resources={"max_replica_count": 3})


def test_what_a_container_is_told_to_start_is_what_runs(connect, wait_until, tmp_path):
    """A public image stands for an interpreter: the text that the container is told is the program."""
    text = (
        "import os, sys\n"
        "from http.server import BaseHTTPRequestHandler as H, HTTPServer as S\n"
        "def answer(self):\n"
        "    self.rfile.read(int(self.headers.get('Content-Length', 0)))\n"
        "    body = ' '.join(sys.argv[1:]).encode()\n"
        "    self.send_response(200)\n"
        "    self.send_header('Content-Length', str(len(body)))\n"
        "    self.end_headers()\n"
        "    self.wfile.write(body)\n"
        "Mine = type('Mine', (H,), {'do_GET': answer, 'do_POST': answer, 'log_message': lambda *_: None})\n"
        "S(('127.0.0.1', int(os.environ['AIP_HTTP_PORT'])), Mine).serve_forever()"
    )
    with Simulator(tmp_path, speed=2000, images={"mirror.example/python": ("{command}", "last")}) as simulator:
        cloud = connect(simulator, wait_until)
        container = {**cloud.container(image="mirror.example/python:3.12"), "command": ["python", "-c", text]}
        found = cloud.upload(cloud.name(), container_spec={**container, "args": ["$(AIP_MODE)"]})
        endpoint = cloud.endpoint()
        cloud.deploy(endpoint, found.model, "1", {"0": 100})
        assert cloud.raw(endpoint) == b"PREDICTION last"
        cloud.close()


def test_a_model_that_is_being_undeployed_gets_no_traffic_any_more(cloud: Any, faults: Any):
    endpoint = cloud.serve(NAME="a")
    cloud.deploy(endpoint, cloud.model(NAME="b"), "2")
    faults.stuck["UndeployModel"] = 1
    started = cloud.endpoints.undeploy_model({"endpoint": endpoint, "deployed_model_id": "2"}, timeout=30)
    with pytest.raises(told.FailedPrecondition, match="being undeployed"):
        cloud.split(endpoint, {"1": 50, "2": 50})
    with pytest.raises(told.FailedPrecondition, match="another operation"):
        cloud.endpoints.undeploy_model({"endpoint": endpoint, "deployed_model_id": "2"}, timeout=30)
    cloud.endpoints.cancel_operation({"name": started.operation.name}, timeout=30)
    assert cloud.settle(started).error.code == 1
    # What was cancelled is as it was before.
    assert dict(cloud.split(endpoint, {"1": 50, "2": 50}).traffic_split) == {"1": 50, "2": 50}


def test_a_deployment_whose_split_has_become_wrong_meanwhile_fails_and_leaves_no_process(
    connect, wait_until, server, tmp_path
):
    """The container says that it is unwell until a file is there, so the deployment ends after what happens meanwhile."""
    gate, timings = tmp_path / "gate", Timings(upload=1, endpoint=1, stage=1, undeploy=1)
    with Simulator(tmp_path, speed=100, timings=timings, images={"mine": server}) as simulator:
        cloud = connect(simulator, wait_until)
        endpoint = cloud.serve(NAME="a")
        cloud.deploy(endpoint, cloud.model(NAME="b"), "2")
        children = len(psutil.Process().children(recursive=True))
        started = cloud.begin_deploy(endpoint, cloud.model(HEALTH_FILE=str(gate)), "3", {"2": 50, "0": 50})
        undeploy = cloud.endpoints.undeploy_model({"endpoint": endpoint, "deployed_model_id": "2"}, timeout=30)
        cloud.done(undeploy, v1.UndeployModelResponse)
        gate.touch()
        error = cloud.settle(started).error
        assert (error.code, "not on the endpoint: 2" in error.message) == (3, True)
        assert dict(cloud.get(endpoint).traffic_split) == {"1": 100}
        wait_until(lambda: len(psutil.Process().children(recursive=True)) == children - 1, 20)
        cloud.close()
