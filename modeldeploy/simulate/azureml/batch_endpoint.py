"""A batch endpoint and its deployments as they are, and as the API tells them."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.azureml import resources
from modeldeploy.simulate.azureml.defaults import given
from modeldeploy.simulate.azureml.endpoint import CREATING, front
from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import World

# What the service writes into a deployment that says nothing of it.
_DEPLOYMENT: Json = {
    "description": None, "properties": {}, "compute": None, "codeConfiguration": None, "environmentId": None, "environmentVariables": {},
    "model": None, "errorThreshold": -1, "loggingLevel": "Info", "maxConcurrencyPerInstance": 1, "miniBatchSize": 10,
    "outputAction": "AppendRow", "outputFileName": "predictions.csv",
}  # fmt: skip
_RETRIES: Json = {"maxRetries": 3, "timeout": "PT30S"}


@attrs.define(eq=False)
class BatchDeployment:
    """One deployment: ``asked`` is the body of its latest PUT with every default written out."""

    name: str
    asked: Json
    born: Born
    state: str = CREATING
    operation: str = ""


@attrs.define(eq=False)
class BatchEndpoint:
    """One endpoint."""

    name: str
    asked: Json
    born: Born
    state: str = CREATING
    deployments: dict[str, BatchDeployment] = attrs.field(factory=dict)
    operation: str = ""

    @property
    def default(self) -> str:
        """The name of the deployment that jobs go to; empty when none was chosen."""
        defaults = self.asked["properties"].get("defaults") or {}
        return str(defaults.get("deploymentName") or "")


def filled(asked: Json) -> Json:
    """Write out every default of a deployment."""
    properties = given(asked.get("properties") or {})
    resources_ = {"instanceCount": 1, **given(properties.get("resources", {}))}
    retries = {**_RETRIES, **given(properties.get("retrySettings", {}))}
    whole = {**_DEPLOYMENT, **properties, "resources": resources_, "retrySettings": retries}
    return {"tags": asked.get("tags") or {}, "properties": whole}


def endpoint_told(world: World, endpoint: BatchEndpoint) -> Json:
    """Write an endpoint."""
    asked = endpoint.asked["properties"]
    ready = endpoint.state != CREATING
    properties = {
        "description": asked.get("description"),
        "authMode": "AADToken",
        "properties": {**(asked.get("properties") or {}), **resources.server_properties(endpoint.operation)},
        "scoringUri": f"{front(world, endpoint.name)}/jobs" if ready else None,
        "swaggerUri": None,
        "provisioningState": endpoint.state,
        "defaults": {"deploymentName": endpoint.default or None},
    }
    told = resources.resource(world, f"batchEndpoints/{endpoint.name}", "batchEndpoints", endpoint.born, properties)
    identity = {"type": "SystemAssigned", "principalId": world.site.workspace_id, "tenantId": world.site.tenant}
    return {**told, "location": world.site.region, "tags": endpoint.asked.get("tags") or {}, "identity": identity}


def deployment_told(world: World, endpoint: BatchEndpoint, deployment: BatchDeployment) -> Json:
    """Write a deployment."""
    asked = deployment.asked["properties"]
    properties = {
        **asked,
        "properties": {**asked["properties"], **resources.server_properties(deployment.operation)},
        "provisioningState": deployment.state,
    }
    tail = f"batchEndpoints/{endpoint.name}/deployments/{deployment.name}"
    told = resources.resource(world, tail, "batchEndpoints/deployments", deployment.born, properties)
    return {**told, "location": world.site.region, "tags": deployment.asked["tags"]}
