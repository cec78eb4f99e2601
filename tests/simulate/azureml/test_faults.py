"""What goes wrong on demand, and how a caller sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import urllib3


def test_every_nth_request_is_throttled(cloud: Any, faults: Any):
    faults.throttle_every = 3
    answers = [cloud.ask("GET", "") for _number in range(6)]
    refused = [each for each in answers if each.status == 429]
    assert len(refused) == 2
    assert all(each.headers["Retry-After"] and each.json()["error"]["code"] == "TooManyRequests" for each in refused)


def test_every_nth_request_fails(cloud: Any, faults: Any):
    faults.fail_every = 2
    answers = [cloud.ask("GET", "") for _number in range(4)]
    refused = [each for each in answers if each.status == 500]
    assert len(refused) == 2
    assert refused[0].json()["error"]["code"] == "InternalServerError"


def test_a_conflict_comes_as_often_as_it_is_asked_for(cloud: Any, faults: Any):
    faults.conflict["OnlineEndpoints_CreateOrUpdate"] = 2
    name = cloud.name()
    assert [cloud.put_endpoint(name).status for _number in range(2)] == [409, 409]
    assert cloud.settle(cloud.put_endpoint(name))["status"] == "Succeeded"


def test_rights_that_are_missing_are_told(cloud: Any, faults: Any):
    faults.refuse["Workspaces_Get"] = 1
    answer = cloud.ask("GET", "")
    assert (answer.status, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")


def test_a_request_that_is_cut_off_before_changes_nothing(cloud: Any, faults: Any):
    faults.drop_before["OnlineEndpoints_CreateOrUpdate"] = 1
    name = cloud.name()
    with pytest.raises(urllib3.exceptions.ProtocolError):
        cloud.put_endpoint(name)
    assert cloud.ask("GET", f"/onlineEndpoints/{name}").status == 404


def test_a_lost_answer_loses_the_answer_only(cloud: Any, faults: Any):
    faults.drop_after["OnlineEndpoints_CreateOrUpdate"] = 1
    name = cloud.name()
    with pytest.raises(urllib3.exceptions.ProtocolError):
        cloud.put_endpoint(name)
    cloud.wait_until(
        lambda: cloud.get(f"/onlineEndpoints/{name}")["properties"]["provisioningState"] == "Succeeded", 10, what="it"
    )


@pytest.mark.parametrize(
    ("switch", "code"),
    [("not_ready", "ResourceNotReady"), ("image_build", "ImageBuildFailure"), ("capacity", "OutOfCapacity")],
    ids=["not-ready", "image", "capacity"],
)
def test_a_deployment_fails_with_the_services_own_code(cloud: Any, faults: Any, switch: str, code: str):
    setattr(faults, switch, True)
    ended = cloud.deploy(cloud.endpoint(), "blue")
    assert (ended["status"], ended["error"]["code"]) == ("Failed", code)


def test_a_code_may_stand_before_the_message_only(cloud: Any, faults: Any):
    faults.not_ready = faults.nameless = True
    error = cloud.deploy(cloud.endpoint(), "blue")["error"]
    assert error["code"] is None
    assert error["message"].startswith("ResourceNotReady: ")


def test_too_few_cores_are_told_with_what_is_needed(cloud: Any, faults: Any):
    faults.quota["Standard_F4s_v2"] = 6
    answer = cloud.put_deployment(cloud.endpoint(), "blue", instanceType="Standard_F4s_v2")
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["message"]) == (400, "BadRequest", "The request is invalid.")
    detail = error["details"][0]
    assert detail["code"] == "InferencingClientCreateDeploymentFailed"
    inner = json.loads(detail["message"].partition("error detail: ")[2])
    assert "Current usage/limit: 0/6. Additional needed: 8" in inner["errors"]["VmSize"][0]


def test_enough_cores_are_counted_over_all_deployments(cloud: Any, faults: Any):
    faults.quota["Standard_DS2_v2"] = 8
    endpoint = cloud.endpoint()
    assert cloud.deploy(endpoint, "blue", instanceType="Standard_DS2_v2")["status"] == "Succeeded"
    assert cloud.deploy(endpoint, "green", instanceType="Standard_DS2_v2")["status"] == "Succeeded"
    assert cloud.put_deployment(endpoint, "red", instanceType="Standard_DS2_v2").status == 400


def test_reads_may_tell_what_was_before(cloud: Any, faults: Any):
    endpoint = cloud.serve("blue", "green")
    faults.stale_s = 1_000.0
    answer = cloud.put_endpoint(endpoint, traffic={"green": 100})
    assert cloud.get(f"/onlineEndpoints/{endpoint}")["properties"]["provisioningState"] == "Succeeded"
    assert cloud.get(f"/onlineEndpoints/{endpoint}")["properties"]["traffic"] == {"blue": 100}
    cloud.settle(answer)
    cloud.wait_until(
        lambda: cloud.get(f"/onlineEndpoints/{endpoint}")["properties"]["traffic"] == {"green": 100},
        10,
        what="the change",
    )


def test_what_was_made_may_not_be_found_yet(cloud: Any, faults: Any):
    faults.stale_s = 1_000.0
    name = cloud.name()
    cloud.settle(cloud.put_endpoint(name))
    assert cloud.ask("GET", f"/onlineEndpoints/{name}").status == 404
    cloud.wait_until(lambda: cloud.ask("GET", f"/onlineEndpoints/{name}").status == 200, 10, what="the endpoint")


def test_an_endpoint_that_succeeded_may_refuse_deployments_still(cloud: Any, faults: Any):
    faults.settling_s = 1_000.0
    endpoint = cloud.endpoint()
    answer = cloud.put_deployment(endpoint, "blue")
    assert answer.status == 409
    assert "because it is in Updating provisioning state" in answer.json()["error"]["message"]
    cloud.wait_until(lambda: cloud.put_deployment(endpoint, "blue").status == 201, 10, what="a deployment")


def test_the_name_of_what_was_deleted_may_be_held(cloud: Any, faults: Any):
    name = cloud.endpoint()
    faults.held_s = 1_000.0
    cloud.settle(cloud.ask("DELETE", f"/onlineEndpoints/{name}"))
    answer = cloud.put_endpoint(name)
    assert "There is already an endpoint with this name" in answer.json()["error"]["details"][0]["message"]
    cloud.wait_until(lambda: cloud.put_endpoint(name).status == 201, 10, what="the name")


def test_calls_of_endpoints_are_throttled_by_themselves(cloud: Any, faults: Any):
    call = cloud.caller(cloud.serve("blue"))
    faults.throttle_scoring_every = 2
    assert sorted(call().status for _number in range(4)) == [200, 200, 429, 429]


def test_a_call_of_an_endpoint_may_lose_its_answer(cloud: Any, faults: Any):
    endpoint = cloud.serve("blue")
    call = cloud.caller(endpoint)
    for switch, asked in ((faults.drop_before, "first"), (faults.drop_after, "second")):
        switch["OnlineEndpoints_Score"] = 1
        with pytest.raises(urllib3.exceptions.ProtocolError):
            call({"x": [], "note": asked})
    cloud.wait_until(lambda: "second" in cloud.logs(endpoint, "blue"), 5, what="the call that was processed")
    assert "first" not in cloud.logs(endpoint, "blue")


def test_a_deletion_that_fails_can_be_asked_for_again(cloud: Any, faults: Any):
    faults.broken.update(OnlineDeployments_Delete=1, OnlineEndpoints_Delete=1)
    endpoint = cloud.endpoint()
    cloud.deploy(endpoint, "blue")
    for path in (f"/onlineEndpoints/{endpoint}/deployments/blue", f"/onlineEndpoints/{endpoint}"):
        ended = [cloud.settle(cloud.ask("DELETE", path))["status"] for _number in range(2)]
        assert ended == ["Failed", "Succeeded"]


def test_a_batch_call_may_lose_its_answer(cloud: Any, faults: Any):
    """The job runs all the same, so that whoever repeats the call has two."""
    name = cloud.name()
    body = {"location": "westeurope", "properties": {"authMode": "AADToken"}}
    cloud.settle(cloud.ask("PUT", f"/batchEndpoints/{name}", body))
    faults.drop_before["BatchEndpoints_Invoke"] = 1
    token = cloud.simulator.credential.get_token("https://ml.azure.com/.default").token
    url = cloud.get(f"/batchEndpoints/{name}")["properties"]["scoringUri"]
    with pytest.raises(urllib3.exceptions.ProtocolError):
        cloud.ask("POST", url, {"properties": {}}, Authorization=f"Bearer {token}")
    assert cloud.ask("POST", url, {"properties": {}}, Authorization=f"Bearer {token}").status == 400
