"""The shapes of answers beside those of recorded sessions of the real service, as the paths of their members.

The paths were written down by hand from what the sessions show (2022 to 2025); no value of them is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

RESOURCE = {
    "id", "name", "type", "properties", "systemData.createdAt", "systemData.createdBy", "systemData.createdByType",
    "systemData.lastModifiedAt",
}  # fmt: skip
TRACKED = RESOURCE | {"location", "tags"}
ASSET = {f"properties.{each}" for each in ("description", "tags", "properties", "isArchived", "isAnonymous")}
PROBE = {"failureThreshold", "successThreshold", "timeout", "period", "initialDelay"}
SHAPES = {
    "endpoint": TRACKED
    | {"kind", "identity.type", "identity.principalId", "identity.tenantId"}
    | {
        f"properties.{each}"
        for each in (
            "authMode",
            "scoringUri",
            "swaggerUri",
            "provisioningState",
            "traffic",
            "mirrorTraffic",
            "compute",
            "description",
        )
    }
    | {
        "properties.publicNetworkAccess",
        "properties.properties.createdBy",
        "properties.properties.AzureAsyncOperationUri",
    },
    "deployment": TRACKED
    | {"kind", "sku.name", "sku.tier", "sku.capacity", "properties.scaleSettings.scaleType"}
    | {f"properties.{probe}.{each}" for probe in ("livenessProbe", "readinessProbe") for each in PROBE}
    | {
        f"properties.requestSettings.{each}"
        for each in ("maxQueueWait", "requestTimeout", "maxConcurrentRequestsPerInstance")
    }
    | {f"properties.codeConfiguration.{each}" for each in ("codeId", "scoringScript")}
    | {
        f"properties.{each}"
        for each in (
            "endpointComputeType",
            "model",
            "environmentId",
            "environmentVariables",
            "instanceType",
            "provisioningState",
            "description",
            "appInsightsEnabled",
            "modelMountPath",
        )
    },
    "model": RESOURCE | ASSET | {f"properties.{each}" for each in ("flavors", "modelType", "modelUri", "jobName")},
    "code": RESOURCE | ASSET | {"properties.codeUri"},
    "environment": RESOURCE
    | ASSET
    | {
        f"properties.{each}" for each in ("environmentType", "image", "condaFile", "osType", "inferenceConfig", "build")
    },
    "datastore": RESOURCE
    | {
        f"properties.{each}"
        for each in ("datastoreType", "accountName", "containerName", "endpoint", "protocol", "isDefault")
    }
    | {"properties.credentials.credentialsType", "properties.serviceDataAccessAuthIdentity"},
    "operation": {"id", "name", "status", "startTime", "endTime", "percentComplete"},
    "token": {"accessToken", "tokenType", "expiryTimeUtc", "refreshAfterTimeUtc"},
    "batch endpoint": TRACKED
    | {f"properties.{each}" for each in ("authMode", "scoringUri", "provisioningState", "defaults.deploymentName")},
    "batch job": {"id", "name", "type", "properties.status"},
}


def paths(value: Any, within: str = "") -> Iterator[str]:
    """Give the paths of all members; of an object both itself and what is in it."""
    for name, inner in value.items():
        yield f"{within}{name}"
        if isinstance(inner, dict):
            yield from paths(inner, f"{within}{name}.")


@pytest.fixture(scope="module")
def answers(cloud: Any) -> dict[str, Any]:
    endpoint, tokens, batch = cloud.serve("blue"), cloud.endpoint(authMode="AMLToken"), cloud.name()
    operation = cloud.settle(cloud.put_endpoint(tokens, authMode="AMLToken"))
    body = {"location": "westeurope", "properties": {"authMode": "AADToken"}}
    cloud.settle(cloud.ask("PUT", f"/batchEndpoints/{batch}", body))
    return {
        "endpoint": cloud.get(f"/onlineEndpoints/{endpoint}"),
        "deployment": cloud.get(f"/onlineEndpoints/{endpoint}/deployments/blue"),
        "model": cloud.get("/models/iris/versions/1"),
        "code": cloud.get("/codes/score/versions/1"),
        "environment": cloud.get("/environments/plain/versions/1"),
        "datastore": cloud.get("/datastores/workspaceblobstore"),
        "operation": operation,
        "token": cloud.ask("POST", f"/onlineEndpoints/{tokens}/token").json(),
        "batch endpoint": cloud.get(f"/batchEndpoints/{batch}"),
        "batch job": job(cloud, batch),
    }


def job(cloud: Any, endpoint: str) -> Any:
    cloud.upload("in/recorded/a.txt", b"1")
    whole = {
        "model": {"referenceType": "Id", "assetId": cloud.model},
        "environmentId": cloud.environment,
        "codeConfiguration": {"codeId": cloud.code, "scoringScript": "score.py"},
        "compute": f"{cloud.site}/computes/cpu-cluster",
    }
    path = f"/batchEndpoints/{endpoint}/deployments/blue"
    cloud.settle(cloud.ask("PUT", path, {"location": "westeurope", "properties": whole}))
    token = cloud.simulator.credential.get_token("https://ml.azure.com/.default").token
    uri = "azureml://datastores/workspaceblobstore/paths/in/recorded"
    body = {"properties": {"inputData": {"UriFolder": {"jobInputType": "UriFolder", "uri": uri}}}}
    headers = {"Authorization": f"Bearer {token}", "azureml-model-deployment": "blue"}
    url = cloud.get(f"/batchEndpoints/{endpoint}")["properties"]["scoringUri"]
    return cloud.ask("POST", url, body, **headers).json()


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_an_answer_has_every_member_that_was_recorded(answers: dict[str, Any], kind: str):
    assert SHAPES[kind] - set(paths(answers[kind])) == set()


def test_members_are_named_by_their_paths():
    assert list(paths({"a": {"b": 1}, "c": []})) == ["a", "a.b", "c"]
