"""What the service writes into a deployment that says nothing of it, as the recorded answers have it."""

from __future__ import annotations

from modeldeploy.simulate.azureml.exchange import Json

_PROBE: Json = {
    "failureThreshold": 30,
    "successThreshold": 1,
    "timeout": "PT2S",
    "period": "PT10S",
    "initialDelay": "PT10S",
}
_REQUESTS: Json = {"maxConcurrentRequestsPerInstance": 1, "requestTimeout": "PT5S", "maxQueueWait": "PT0S"}
_PROPERTIES: Json = {
    "description": None, "properties": {}, "codeConfiguration": None, "environmentId": None, "environmentVariables": {},
    "endpointComputeType": "Managed", "instanceType": "Standard_F4s_v2", "model": None, "modelMountPath": None,
    "appInsightsEnabled": False, "egressPublicNetworkAccess": "Enabled", "dataCollector": None,
}  # fmt: skip


def filled(asked: Json) -> Json:
    """Write out every default of a deployment."""
    known = given(asked.get("properties", {}))
    sku = {"name": "Default", "tier": "Standard", "capacity": 1, **given(asked.get("sku") or {})}
    properties = {
        **_PROPERTIES,
        **known,
        "scaleSettings": {"scaleType": "Default", **given(known.get("scaleSettings", {}))},
        "requestSettings": {**_REQUESTS, **given(known.get("requestSettings", {}))},
        "livenessProbe": {**_PROBE, **given(known.get("livenessProbe", {}))},
        "readinessProbe": {**_PROBE, **given(known.get("readinessProbe", {}))},
    }
    return {"tags": asked.get("tags") or {}, "sku": sku, "properties": properties}


def given(asked: Json) -> Json:
    """Leave out what is null."""
    return {key: value for key, value in asked.items() if value is not None}
