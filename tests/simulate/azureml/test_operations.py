"""The protocol of long-running operations, as recorded sessions have it."""

from __future__ import annotations

from typing import Any


def test_a_put_is_answered_with_201_and_where_to_look(cloud: Any):
    answer = cloud.put_endpoint(cloud.name())
    told = answer.json()["properties"]
    assert (answer.status, told["provisioningState"], told["scoringUri"]) == (201, "Creating", None)
    assert answer.headers["x-ms-async-operation-timeout"] == "PT30M"
    assert int(answer.headers["Retry-After"]) >= 1
    for header, kind in (("Azure-AsyncOperation", "mfeOperationsStatus"), ("Location", "mfeOperationResults")):
        assert f"/locations/westeurope/{kind}/oe:" in answer.headers[header]
    assert cloud.settle(answer)["status"] == "Succeeded"


def test_an_update_tells_the_old_traffic_until_it_is_done(cloud: Any):
    endpoint = cloud.serve("blue", "green")
    answer = cloud.put_endpoint(endpoint, traffic={"green": 100})
    told = answer.json()["properties"]
    assert (answer.status, told["provisioningState"], told["traffic"]) == (201, "Updating", {"blue": 100})
    cloud.settle(answer)
    assert cloud.get(f"/onlineEndpoints/{endpoint}")["properties"]["traffic"] == {"green": 100}


def test_an_operation_tells_how_it_stands(cloud: Any):
    answer = cloud.put_endpoint(cloud.name())
    begun = cloud.ask("GET", answer.headers["Azure-AsyncOperation"]).json()
    ended = cloud.settle(answer)
    assert {"id", "name", "status", "startTime", "percentComplete"} <= set(ended)
    assert (begun["status"], begun["percentComplete"]) in {("Creating", 0.0), ("Succeeded", 100.0)}
    assert (ended["status"], ended["percentComplete"]) == ("Succeeded", 100.0)
    assert ended["id"].endswith(f"mfeOperationsStatus/{ended['name']}")


def test_the_result_is_202_first_and_the_resource_then(cloud: Any, faults: Any):
    name = cloud.name()
    answer = cloud.put_endpoint(name)
    assert cloud.ask("GET", answer.headers["Location"]).status in {200, 202}
    cloud.settle(answer)
    result = cloud.ask("GET", answer.headers["Location"])
    assert (result.status, result.json()["name"]) == (200, name)


def test_an_operation_that_failed_is_told_with_status_200(cloud: Any, faults: Any):
    faults.broken["OnlineEndpoints_CreateOrUpdate"] = 1
    name = cloud.name()
    answer = cloud.put_endpoint(name)
    ended = cloud.settle(answer)
    assert cloud.ask("GET", answer.headers["Azure-AsyncOperation"]).status == 200
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "InternalServerError")
    assert cloud.get(f"/onlineEndpoints/{name}")["properties"]["provisioningState"] == "Failed"
    assert cloud.ask("GET", answer.headers["Location"]).status == 500


def test_a_canceled_operation_says_so(cloud: Any, faults: Any):
    faults.canceled["OnlineEndpoints_CreateOrUpdate"] = 1
    ended = cloud.settle(cloud.put_endpoint(cloud.name()))
    assert (ended["status"], ended["error"]["code"]) == ("Canceled", "OperationCanceled")


def test_the_url_of_an_operation_is_signed_and_long(cloud: Any):
    """The copy in the properties has no signature, so that a client which rebuilds the URL finds out."""
    answer = cloud.put_endpoint(cloud.name())
    url = answer.headers["Azure-AsyncOperation"]
    plain = answer.json()["properties"]["properties"]["AzureAsyncOperationUri"]
    assert len(url) > 2000
    assert url.startswith(f"{plain}?")
    assert cloud.ask("GET", plain).status == 403
    cloud.settle(answer)


def test_a_second_change_during_an_operation_is_a_conflict(cloud: Any):
    name = cloud.name()
    first = cloud.put_endpoint(name)
    second = cloud.put_endpoint(name)
    assert (second.status, second.json()["error"]["code"]) == (409, "Conflict")
    cloud.settle(first)


def test_deleting_is_answered_with_202_and_null(cloud: Any):
    name = cloud.endpoint()
    answer = cloud.ask("DELETE", f"/onlineEndpoints/{name}")
    assert (answer.status, answer.data) == (202, b"null")
    assert "/mfeOperationResults/" in answer.headers["Location"]
    assert cloud.settle(answer)["status"] == "Succeeded"
    assert cloud.ask("GET", answer.headers["Location"]).status == 204
    assert cloud.ask("GET", f"/onlineEndpoints/{name}").status == 404


def test_deleting_what_is_not_there_succeeds(cloud: Any):
    assert cloud.ask("DELETE", f"/onlineEndpoints/{cloud.name()}").status == 204
    assert cloud.ask("DELETE", f"/onlineEndpoints/{cloud.name()}/deployments/blue").status == 204


def test_answers_tell_what_is_left_of_the_buckets(cloud: Any):
    answer = cloud.ask("GET", "")
    assert int(answer.headers["x-ms-ratelimit-remaining-subscription-reads"]) > 0
    assert answer.headers["x-ms-request-id"]


def test_a_request_without_a_token_of_this_audience_is_refused(cloud: Any):
    other = cloud.simulator.credential.get_token("https://ml.azure.com/.default").token
    for header in ("", "Bearer x.y.z", f"Bearer {other}"):
        answer = cloud.ask("GET", "", Authorization=header)
        assert (answer.status, answer.json()["error"]["code"]) == (401, "AuthenticationFailed")


def test_what_is_not_there_is_told_as_resource_manager_does(cloud: Any):
    assert cloud.ask("GET", "/onlineEndpoints/none").json()["error"]["code"] == "NotFound"
    assert cloud.ask("PATCH", "/onlineEndpoints/none").status == 405
    assert cloud.ask("GET", "/nonsense").status == 404
