"""What goes wrong on demand, as the unmodified clients see it, and operations that are asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.api_core import exceptions as told
from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2

from modeldeploy.simulate.vertex import Faults
from modeldeploy.simulate.vertex.methods import OPERATIONS, methods


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("UNAVAILABLE", told.ServiceUnavailable),
        ("RESOURCE_EXHAUSTED", told.ResourceExhausted),
        ("ABORTED", told.Aborted),
        ("INTERNAL", told.InternalServerError),
        ("PERMISSION_DENIED", told.PermissionDenied),
    ],
)
def test_a_code_is_answered_once_and_nothing_is_done(cloud: Any, faults: Any, code: str, error: type[Exception]):
    endpoint = cloud.endpoint()
    faults.error["UpdateEndpoint"] = [code]
    before = cloud.get(endpoint)
    with pytest.raises(error):
        cloud.split(endpoint, {})
    assert cloud.get(endpoint) == before
    cloud.split(endpoint, {})


def test_a_lost_answer_leaves_the_work_done(cloud: Any, parent: str, faults: Any):
    faults.lose["UploadModel"] = 1
    request = {
        "parent": parent,
        "model_id": cloud.name(),
        "model": {"display_name": "m", "container_spec": cloud.container()},
    }
    with pytest.raises(told.ServiceUnavailable):
        cloud.models.upload_model(request, timeout=30)
    name = f"{parent}/models/{request['model_id']}"

    def there() -> bool:
        try:
            return bool(cloud.models.get_model({"name": name}, timeout=30).name)
        except told.NotFound:
            return False

    cloud.wait_until(there, 20)
    with pytest.raises(told.AlreadyExists):
        cloud.models.upload_model(request, timeout=30)


def test_a_call_that_hangs_ends_with_the_caller_s_patience_and_does_nothing(cloud: Any, parent: str, faults: Any):
    faults.hang["CreateEndpoint"] = 1
    request = {"parent": parent, "endpoint_id": cloud.name(), "endpoint": {"display_name": "e"}}
    with pytest.raises(told.DeadlineExceeded):
        cloud.endpoints.create_endpoint(request, timeout=0.3)
    cloud.done(cloud.endpoints.create_endpoint(request, timeout=30), v1.Endpoint)


def _failures(ask: Callable[[], Any], times: int) -> int:
    failed = 0
    for _number in range(times):
        try:
            ask()
        except told.ServiceUnavailable:
            failed += 1
    return failed


def test_every_so_many_requests_fail_but_predictions_by_a_switch_of_their_own(cloud: Any, faults: Any):
    endpoint = cloud.serve(NAME="a")
    faults.fail_every = 2
    assert _failures(lambda: cloud.get(endpoint), 4) == 2
    faults.fail_every, faults.fail_predictions_every = 0, 3
    assert _failures(lambda: cloud.raw(endpoint), 6) == 2
    faults.fail_predictions_every, faults.throttle_every = 0, 1
    with pytest.raises(told.ResourceExhausted, match="per minute"):
        cloud.get(endpoint)
    cloud.raw(endpoint)


@pytest.mark.parametrize(("switch", "code"), [("unhealthy", 9), ("stockout", 8)])
def test_a_deployment_fails_as_it_is_asked_to(cloud: Any, faults: Any, switch: str, code: int):
    endpoint, model = cloud.endpoint(), cloud.model()
    setattr(faults, switch, 1)
    assert cloud.settle(cloud.begin_deploy(endpoint, model, "1")).error.code == code
    assert cloud.deploy(endpoint, model, "1").id == "1"


def test_an_operation_ends_in_the_error_that_it_is_asked_for(cloud: Any, faults: Any):
    endpoint, model = cloud.endpoint(), cloud.model()
    faults.broken["DeployModel"] = ["INTERNAL", "DEADLINE_EXCEEDED"]
    for code in (13, 4):
        ended = cloud.settle(cloud.begin_deploy(endpoint, model, "1"))
        metadata = v1.DeployModelOperationMetadata.deserialize(ended.metadata.value)
        assert (ended.error.code, metadata.deployment_stage.name) == (code, "FAILED_TO_DEPLOY")
    assert cloud.deploy(endpoint, model, "1").id == "1"


def test_more_requests_in_a_minute_than_the_quota_allows_are_refused(connect, wait_until, tmp_path, parent):
    from modeldeploy.simulate.vertex import Simulator
    from modeldeploy.simulate.vertex.quotas import SUBMISSIONS

    # At the service's own pace a minute lasts a minute.
    with Simulator(tmp_path, speed=1, faults=Faults(quota={SUBMISSIONS: 2})) as simulator:
        cloud = connect(simulator, wait_until)
        for number in range(2):
            request = {"parent": parent, "endpoint_id": f"e{number}", "endpoint": {"display_name": "e"}}
            cloud.endpoints.create_endpoint(request, timeout=30)
        with pytest.raises(told.ResourceExhausted, match=SUBMISSIONS):
            cloud.endpoints.create_endpoint(request, timeout=30)
        cloud.close()


def test_operations_are_listed_waited_for_and_forgotten(cloud: Any, parent: str, faults: Any):
    faults.stuck["CreateEndpoint"] = 1
    request = {"parent": parent, "endpoint_id": cloud.name(), "endpoint": {"display_name": "e"}}
    name = cloud.endpoints.create_endpoint(request, timeout=30).operation.name
    resource = name.partition("/operations/")[0]
    client = cloud.endpoints
    listed = client.list_operations({"name": resource}, timeout=30).operations
    assert [(each.name, each.done) for each in listed] == [(name, False)]
    assert not client.list_operations({"name": resource, "filter": "done=true"}, timeout=30).operations
    with pytest.raises(told.FailedPrecondition, match="not done"):
        client.delete_operation({"name": name}, timeout=30)
    # Who asks with the project's id and without the resource finds it as well.
    short = f"{parent}/operations/{name.rpartition('/')[2]}"
    assert client.get_operation({"name": short}, timeout=30).name == name
    client.cancel_operation({"name": name}, timeout=30)
    # The package gives the answer of this one method as it came.
    found = client.wait_operation({"name": name}, timeout=30)
    ended = operations_pb2.Operation.FromString(found) if isinstance(found, bytes) else found
    assert (ended.done, ended.error.code) == (True, 1)
    client.delete_operation({"name": name}, timeout=30)
    with pytest.raises(told.NotFound):
        client.get_operation({"name": name}, timeout=30)


def test_what_has_come_to_its_end_is_not_cancelled(cloud: Any, parent: str):
    request = {"parent": parent, "endpoint_id": cloud.name(), "endpoint": {"display_name": "e"}}
    started = cloud.endpoints.create_endpoint(request, timeout=30)
    cloud.settle(started)
    cloud.endpoints.cancel_operation({"name": started.operation.name}, timeout=30)
    assert not cloud.operation(started).error.code


def test_the_methods_are_those_of_the_installed_package():
    """Each public method of a client that is sent is known, so that an upgrade of the package brings its own."""
    known = {(each.service, each.handler) for each in methods()}
    for service, handlers in (
        ("ModelService", {"upload_model", "merge_version_aliases", "delete_model_version"}),
        ("EndpointService", {"deploy_model", "mutate_deployed_model", "update_endpoint_long_running"}),
        ("PredictionService", {"raw_predict", "stream_raw_predict", "explain"}),
        ("JobService", {"create_batch_prediction_job", "create_custom_job"}),
        (OPERATIONS, {"get_operation", "wait_operation", "list_operations", "cancel_operation", "delete_operation"}),
    ):
        assert handlers <= {handler for owner, handler in known if owner == service}
        client = getattr(v1, f"{service}Client", None)
        assert client is None or all(hasattr(client, handler) for owner, handler in known if owner == service)
    assert [each.handler for each in methods() if each.streams and each.service == "PredictionService"].count(
        "stream_raw_predict"
    ) == 1


def test_what_is_not_simulated_says_so(cloud: Any, parent: str):
    with pytest.raises(told.MethodNotImplemented, match="ListCustomJobs is not simulated"):
        list(cloud.jobs.list_custom_jobs({"parent": parent}, timeout=30))
