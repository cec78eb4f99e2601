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
    given = _given(asked.get("properties", {}))
    sku = {"name": "Default", "tier": "Standard", "capacity": 1, **_given(asked.get("sku") or {})}
    properties = {
        **_PROPERTIES,
        **given,
        "scaleSettings": {"scaleType": "Default", **_given(given.get("scaleSettings", {}))},
        "requestSettings": {**_REQUESTS, **_given(given.get("requestSettings", {}))},
        "livenessProbe": {**_PROBE, **_given(given.get("livenessProbe", {}))},
        "readinessProbe": {**_PROBE, **_given(given.get("readinessProbe", {}))},
    }
    return {"tags": asked.get("tags") or {}, "sku": sku, "properties": properties}


def _given(asked: Json) -> Json:
    return {key: value for key, value in asked.items() if value is not None}
