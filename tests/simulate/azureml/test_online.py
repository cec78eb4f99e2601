"""Online endpoints and deployments: what may be asked of them, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    "properties",
    [
        {"traffic": {"blue": 100}},
        {"authMode": "Sometimes"},
        {"authMode": None},
        {"nonsense": 1},
        {"traffic": {"blue": "all"}},
        {"mirrorTraffic": {"blue": 10}},
    ],
    ids=["traffic-of-none", "mode", "no-mode", "unknown", "text", "mirror-of-none"],
)
def test_an_endpoint_that_cannot_be_is_refused(cloud: Any, properties: dict[str, Any]):
    name = cloud.name()
    answer = cloud.put_endpoint(name, **properties)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "BadRequest")
    assert answer.json()["error"]["details"][0]["message"]
    assert cloud.ask("GET", f"/onlineEndpoints/{name}").status == 404


@pytest.mark.parametrize("name", ["ab", "1abc", "abc-", "a" * 33, "a_bc"])
def test_a_name_that_cannot_be_is_refused(cloud: Any, name: str):
    assert cloud.put_endpoint(name).status == 400


@pytest.fixture(scope="module")
def served(cloud: Any) -> str:
    return cloud.serve("blue", "green")


@pytest.mark.parametrize(
    ("traffic", "mirror"),
    [
        ({"blue": 99}, {}),
        ({"blue": 60, "green": 60}, {}),
        ({"blue": -10, "green": 110}, {}),
        ({"blue": 99.5, "green": 0.5}, {}),
        ({"blue": 100}, {"green": 51}),
        ({"blue": 50, "green": 50}, {"green": 10}),
        ({"blue": 100}, {"red": 10}),
        ({"Blue": 100}, {}),
    ],
    ids=["99", "120", "negative", "fractions", "mirror-51", "live-and-mirror", "mirror-of-none", "case"],
)
def test_a_split_that_cannot_be_is_refused(cloud: Any, served: str, traffic: dict[str, Any], mirror: dict[str, int]):
    assert cloud.put_endpoint(served, traffic=traffic, mirrorTraffic=mirror).status == 400
    assert cloud.get(f"/onlineEndpoints/{served}")["properties"]["traffic"] == {"blue": 100}


def test_every_default_is_written_out(cloud: Any, served: str):
    told = cloud.get(f"/onlineEndpoints/{served}/deployments/blue")
    probe = {
        "failureThreshold": 30,
        "successThreshold": 1,
        "timeout": "PT2S",
        "period": "PT10S",
        "initialDelay": "PT10S",
    }
    assert told["properties"]["livenessProbe"] == told["properties"]["readinessProbe"] == probe
    assert told["properties"]["requestSettings"] == {
        "maxConcurrentRequestsPerInstance": 1,
        "requestTimeout": "PT5S",
        "maxQueueWait": "PT0S",
    }
    assert told["sku"] == {"name": "Default", "tier": "Standard", "capacity": 1}
    assert told["properties"]["scaleSettings"] == {"scaleType": "Default"}


def test_a_script_that_crashes_fails_the_operation_and_leaves_its_log(cloud: Any):
    endpoint = cloud.endpoint()
    ended = cloud.deploy(endpoint, "blue", environment={"CRASH": "1"})
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "ResourceNotReady")
    assert "aka.ms/oe-tsg" in ended["error"]["message"]
    assert cloud.state(endpoint, "blue") == "Failed"
    assert "RuntimeError: the model cannot be loaded" in cloud.logs(endpoint, "blue")
    # It can be overwritten, and then it serves.
    assert cloud.deploy(endpoint, "blue")["status"] == "Succeeded"


def test_logs_of_the_download_are_kept_apart(cloud: Any, served: str):
    assert "iris:1" in cloud.logs(served, "blue", containerType="StorageInitializer")
    assert "iris:1" not in cloud.logs(served, "blue", containerType="InferenceServer")
    assert cloud.logs(served, "blue", tail=0) == ""


def test_a_deployment_with_traffic_cannot_be_deleted(cloud: Any, served: str):
    answer = cloud.ask("DELETE", f"/onlineEndpoints/{served}/deployments/blue")
    assert answer.status == 400
    assert cloud.state(served, "blue") == "Succeeded"


def test_a_deployment_without_traffic_can(cloud: Any):
    endpoint = cloud.serve("blue", "green")
    assert cloud.settle(cloud.ask("DELETE", f"/onlineEndpoints/{endpoint}/deployments/green"))["status"] == "Succeeded"
    names = [each["name"] for each in cloud.get(f"/onlineEndpoints/{endpoint}/deployments")["value"]]
    assert names == ["blue"]


def test_another_number_of_instances_is_a_scaling(cloud: Any, served: str):
    answer = cloud.put_deployment(served, "green", count=3)
    assert answer.json()["properties"]["provisioningState"] == "Scaling"
    cloud.settle(answer)
    assert cloud.get(f"/onlineEndpoints/{served}/deployments/green")["sku"]["capacity"] == 3


def test_an_update_that_fails_leaves_the_old_one_serving(cloud: Any):
    endpoint = cloud.serve("blue")
    assert cloud.deploy(endpoint, "blue", environment={"CRASH": "1"})["status"] == "Failed"
    assert cloud.caller(endpoint)().json()["by"] == "blue"


def test_what_does_not_exist_cannot_be_deployed(cloud: Any):
    endpoint = cloud.endpoint()
    wrong = (
        {"model": f"{cloud.site}/models/none/versions/1"},
        {"environmentId": f"{cloud.site}/environments/none/versions/1"},
        {"codeConfiguration": {"codeId": f"{cloud.site}/codes/none/versions/1", "scoringScript": "score.py"}},
        {"codeConfiguration": None},
        {"model": cloud.environment},
    )
    for each in wrong:
        assert cloud.put_deployment(endpoint, "blue", **each).status in {400, 404}
    assert cloud.ask("GET", f"/onlineEndpoints/{endpoint}/deployments/blue").status == 404


def test_an_image_that_nobody_has_cannot_be_pulled(cloud: Any):
    route = {"port": 80, "path": "/"}
    routes = {"livenessRoute": route, "readinessRoute": route, "scoringRoute": route}
    cloud.put("/environments/lost/versions/1", {"image": "registry.example/lost:1", "inferenceConfig": routes})
    more = {"environmentId": f"{cloud.site}/environments/lost/versions/1", "codeConfiguration": None}
    ended = cloud.deploy(cloud.endpoint(), "blue", **more)
    assert (ended["status"], "lost" in ended["error"]["message"]) == ("Failed", True)


def test_deployments_without_a_script_are_said_not_to_be_simulated(cloud: Any):
    cloud.put(
        "/models/flow/versions/1",
        {"modelUri": "azureml://datastores/workspaceblobstore/paths/m/model", "modelType": "mlflow_model"},
    )
    more = {"model": f"{cloud.site}/models/flow/versions/1", "environmentId": None, "codeConfiguration": None}
    answer = cloud.put_deployment(cloud.endpoint(), "blue", **more)
    assert (answer.status, answer.json()["error"]["code"]) == (501, "NotSimulated")


def test_a_new_key_takes_the_place_of_the_old_one(cloud: Any):
    endpoint = cloud.serve("blue")
    call, before = cloud.caller(endpoint), cloud.ask("POST", f"/onlineEndpoints/{endpoint}/listKeys").json()
    cloud.settle(cloud.ask("POST", f"/onlineEndpoints/{endpoint}/regenerateKeys", {"keyType": "Primary"}))
    after = cloud.ask("POST", f"/onlineEndpoints/{endpoint}/listKeys").json()
    assert call().status == 401
    assert cloud.caller(endpoint)().status == 200
    assert (after["secondaryKey"], after["primaryKey"] != before["primaryKey"]) == (before["secondaryKey"], True)


def test_the_workspaces_tokens_open_an_endpoint_that_takes_them(cloud: Any):
    endpoint, other = cloud.endpoint(authMode="AMLToken"), cloud.endpoint(authMode="AMLToken")
    cloud.deploy(endpoint, "blue")
    cloud.endpoint(endpoint, authMode="AMLToken", traffic={"blue": 100})
    told = cloud.ask("POST", f"/onlineEndpoints/{endpoint}/token").json()
    foreign = cloud.ask("POST", f"/onlineEndpoints/{other}/token").json()["accessToken"]
    assert told["tokenType"] == "Bearer"
    assert told["expiryTimeUtc"] >= told["refreshAfterTimeUtc"]
    assert _scores(cloud, endpoint, told["accessToken"]) == 200
    assert _scores(cloud, endpoint, foreign) == 401
    assert cloud.ask("POST", f"/onlineEndpoints/{endpoint}/listKeys").status == 400


def test_tokens_of_the_platform_open_an_endpoint_that_takes_them(cloud: Any):
    endpoint = cloud.endpoint(authMode="AADToken")
    cloud.deploy(endpoint, "blue")
    cloud.endpoint(endpoint, authMode="AADToken", traffic={"blue": 100})
    token = cloud.simulator.credential.get_token("https://ml.azure.com/.default").token
    assert _scores(cloud, endpoint, token) == 200
    assert _scores(cloud, endpoint, cloud.token) == 401


def _scores(cloud: Any, endpoint: str, token: str) -> int:
    url = cloud.get(f"/onlineEndpoints/{endpoint}")["properties"]["scoringUri"]
    return cloud.http.request("POST", url, body=b'{"x": [1]}', headers={"Authorization": f"Bearer {token}"}).status
