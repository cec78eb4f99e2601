"""Calls of online endpoints: who may, who answers, and what the statuses say."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

DEPLOYMENT = "azureml-model-deployment"


@pytest.fixture(scope="module")
def served(cloud: Any) -> str:
    settings = {"requestTimeout": "PT1S", "maxConcurrentRequestsPerInstance": 4}
    endpoint = cloud.endpoint()
    for name in ("blue", "green"):
        environment = {"NAME": name, "WORKER_COUNT": "4"}
        assert cloud.deploy(endpoint, name, environment=environment, requestSettings=settings)["status"] == "Succeeded"
    return cloud.endpoint(endpoint, traffic={"blue": 100})


def test_a_call_is_answered_by_the_uploaded_script_and_model(cloud: Any, served: str):
    answer = cloud.caller(served)({"x": [1, 2]})
    assert (answer.status, answer.json()["y"], answer.headers[DEPLOYMENT]) == (200, [3, 6], "blue")
    assert answer.headers["Server"] == "azureml-frontdoor"
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert float(answer.headers["x-ms-run-fn-exec-ms"]) >= 0


def test_ids_of_the_caller_come_back(cloud: Any, served: str):
    answer = cloud.caller(served)(**{"x-request-id": "one", "x-ms-client-request-id": "two"})
    assert (answer.headers["x-request-id"], answer.headers["x-ms-client-request-id"]) == ("one", "two")


def test_the_key_does_not_reach_the_container(cloud: Any, served: str):
    seen = {name.lower() for name in cloud.caller(served)().json()["seen"]}
    assert "authorization" not in seen
    assert "content-type" in seen


def test_a_header_pins_the_deployment(cloud: Any, served: str):
    answer = cloud.caller(served)(**{DEPLOYMENT: "green"})
    assert (answer.json()["by"], answer.headers[DEPLOYMENT]) == ("green", "green")


def test_a_deployment_that_is_not_there_cannot_be_pinned(cloud: Any, served: str):
    assert cloud.caller(served)(**{DEPLOYMENT: "red"}).status == 404


@pytest.mark.parametrize("key", ["", "Bearer ", "Bearer wrong", "Basic abc"])
def test_a_call_without_the_right_key_is_refused(cloud: Any, served: str, key: str):
    assert cloud.caller(served)(Authorization=key).status == 401


def test_a_token_of_the_platform_is_no_key(cloud: Any, served: str):
    token = cloud.simulator.credential.get_token("https://ml.azure.com/.default").token
    assert cloud.caller(served)(Authorization=f"Bearer {token}").status == 401


def test_the_second_key_opens_too(cloud: Any, served: str):
    key = cloud.ask("POST", f"/onlineEndpoints/{served}/listKeys").json()["secondaryKey"]
    assert cloud.caller(served)(Authorization=f"Bearer {key}").status == 200


def test_an_error_of_the_script_is_told_as_the_models(cloud: Any, served: str):
    answer = cloud.caller(served)({"raise": "no"})
    assert (answer.status, answer.headers["ms-azureml-model-error-statuscode"]) == (424, "500")
    assert answer.headers["ms-azureml-model-error-reason"]
    assert "Traceback" not in answer.data.decode()
    cloud.wait_until(lambda: "ValueError: no" in cloud.logs(served, "blue", tail=50), 5, what="the trace in the log")


def test_a_slow_model_is_given_up(cloud: Any, served: str):
    assert cloud.caller(served)({"sleep": 1.5}).status == 408


def test_traffic_is_shared_out_by_whole_percents(cloud: Any, served: str):
    cloud.endpoint(served, traffic={"blue": 90, "green": 10})
    call = cloud.caller(served)
    seen = Counter(call().headers[DEPLOYMENT] for _number in range(300))
    cloud.endpoint(served, traffic={"blue": 100})
    # Six standard deviations around 30 of 300.
    assert seen.total() == 300
    assert 0 < seen["green"] < 62


def test_an_endpoint_without_traffic_answers_nobody(cloud: Any, served: str):
    cloud.endpoint(served, traffic={"blue": 0})
    answer = cloud.caller(served)()
    cloud.endpoint(served, traffic={"blue": 100})
    assert answer.status == 404


def test_a_mirror_gets_copies_that_nobody_waits_for(cloud: Any, served: str, count_until: Any):
    cloud.endpoint(served, traffic={"blue": 100}, mirrorTraffic={"green": 50})
    call, before = cloud.caller(served), cloud.logs(served, "green", tail=1000).count("green got")
    answers = [call({"x": [number]}).json()["by"] for number in range(60)]
    pinned = call({"x": ["pinned"]}, **{DEPLOYMENT: "blue"})
    cloud.wait_until(lambda: cloud.logs(served, "green", tail=1000).count("green got") > before + 8, 10, what="copies")
    cloud.endpoint(served, traffic={"blue": 100})
    assert set(answers) == {"blue"}
    assert pinned.status == 200
    assert "pinned" not in cloud.logs(served, "green", tail=1000)


def test_more_calls_at_a_time_than_are_allowed_are_refused(cloud: Any):
    """Twice the setting is taken, the documented rule; the rest is answered with 429 at once."""
    endpoint = cloud.serve("blue", environment={"WORKER_COUNT": "4"})
    call, together = cloud.caller(endpoint), threading.Barrier(6)

    def ask(_number: int) -> int:
        together.wait()
        return call({"sleep": 0.5}).status

    with ThreadPoolExecutor(6) as threads:
        assert Counter(threads.map(ask, range(6))) == {200: 2, 429: 4}


def test_a_container_that_dies_is_started_again(cloud: Any):
    endpoint = cloud.serve("blue")
    call = cloud.caller(endpoint)
    assert call({"exit": 1}).status in {424, 502}
    cloud.wait_until(lambda: call().status == 200, 20, what="an answer again")
    assert cloud.logs(endpoint, "blue", tail=100).count("blue begins") == 2


def test_a_container_with_routes_is_asked_at_them(cloud: Any):
    route = {
        name: {"port": 8080, "path": path} for name, path in (("livenessRoute", "/live"), ("readinessRoute", "/ready"))
    }
    routes = {**route, "scoringRoute": {"port": 8080, "path": "/predict"}}
    cloud.put("/environments/own/versions/1", {"image": "registry.example/routes:2", "inferenceConfig": routes})
    own = {"environmentId": f"{cloud.site}/environments/own/versions/1", "codeConfiguration": None}
    endpoint = cloud.serve("blue", **own)
    call = cloud.caller(endpoint)
    assert call().data == b"/predict ['model']"
    # All other paths are passed on as they are.
    assert call(path="/v2/models").data == b"/v2/models ['model']"


def test_a_container_that_is_never_ready_fails(cloud: Any):
    own = {"environmentId": f"{cloud.site}/environments/own/versions/1", "codeConfiguration": None}
    ended = cloud.deploy(cloud.endpoint(), "blue", environment={"READY": "503"}, **own)
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "ResourceNotReady")
