"""An online endpoint and its deployments as they are, and as the API tells them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.azureml import resources
from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.instances import Fleet
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import World

CREATING, UPDATING, SCALING, DELETING = "Creating", "Updating", "Scaling", "Deleting"
SUCCEEDED, FAILED = "Succeeded", "Failed"
IN_PROGRESS = frozenset({CREATING, UPDATING, SCALING, DELETING})


@attrs.define(eq=False)
class Deployment:
    """One deployment: ``asked`` is the body of its latest PUT with every default written out."""

    name: str
    asked: Json
    born: Born
    state: str = CREATING
    fleet: Fleet | None = None
    """What answers for it; None before the first process is ready and after the last has ended."""
    operation: str = ""
    """Where its latest operation is looked at."""

    @property
    def size(self) -> str:
        """The type of its instances."""
        return str(self.asked["properties"]["instanceType"])

    @property
    def count(self) -> int:
        """How many instances were asked for."""
        return int(self.asked["sku"]["capacity"])


@attrs.define(eq=False)
class Endpoint:
    """One endpoint: ``traffic`` and ``mirror`` are what is in force, not what was asked for last."""

    name: str
    asked: Json
    born: Born
    state: str = CREATING
    traffic: Mapping[str, int] = attrs.field(factory=dict)
    mirror: Mapping[str, int] = attrs.field(factory=dict)
    deployments: dict[str, Deployment] = attrs.field(factory=dict)
    keys: dict[str, str] = attrs.field(factory=lambda: {"primary": new_key(), "secondary": new_key()})
    operation: str = ""
    settled: float = 0.0
    """From when on deployments are taken again after an operation."""

    @property
    def auth_mode(self) -> str:
        """How callers prove who they are: ``Key``, ``AMLToken`` or ``AADToken``."""
        return str(self.asked["properties"]["authMode"])


def new_key() -> str:
    """Make a key of the length that the service's have."""
    return secrets.token_urlsafe(24)


def endpoint_told(world: World, endpoint: Endpoint) -> Json:
    """Write an endpoint."""
    asked = endpoint.asked["properties"]
    ready = endpoint.state != CREATING
    properties = {
        "description": asked.get("description"),
        "authMode": endpoint.auth_mode,
        "properties": {**(asked.get("properties") or {}), **resources.server_properties(endpoint.operation)},
        "scoringUri": f"{front(world, endpoint.name)}/score" if ready else None,
        "swaggerUri": f"{front(world, endpoint.name)}/swagger.json" if ready else None,
        "provisioningState": endpoint.state,
        "traffic": dict(endpoint.traffic),
        "mirrorTraffic": dict(endpoint.mirror),
        "publicNetworkAccess": asked.get("publicNetworkAccess") or "Enabled",
        "compute": asked.get("compute"),
    }
    told = resources.resource(world, f"onlineEndpoints/{endpoint.name}", "onlineEndpoints", endpoint.born, properties)
    return {
        **told,
        "location": world.site.region,
        "tags": endpoint.asked.get("tags") or {},
        "identity": _identity(world, endpoint.asked.get("identity")),
        "kind": "Managed",
    }


def front(world: World, name: str) -> str:
    """Name where an endpoint is called: what is a host name in the service is the first part of a path here."""
    return f"{world.url}/{name}.{world.site.region}.inference.ml"


def _identity(world: World, asked: Json | None) -> Json:
    kind = (asked or {}).get("type") or "SystemAssigned"
    told: Json = {"type": kind, "principalId": world.site.workspace_id, "tenantId": world.site.tenant}
    return (
        {**told, "userAssignedIdentities": asked["userAssignedIdentities"]}
        if asked and asked.get("userAssignedIdentities")
        else told
    )


def deployment_told(world: World, endpoint: Endpoint, deployment: Deployment) -> Json:
    """Write a deployment."""
    asked = deployment.asked["properties"]
    properties = {
        **asked,
        "properties": {**(asked.get("properties") or {}), **resources.server_properties(deployment.operation)},
        "provisioningState": deployment.state,
    }
    tail = f"onlineEndpoints/{endpoint.name}/deployments/{deployment.name}"
    told = resources.resource(world, tail, "onlineEndpoints/deployments", deployment.born, properties)
    return {
        **told,
        "location": world.site.region,
        "tags": deployment.asked.get("tags") or {},
        "kind": "Managed",
        "sku": deployment.asked["sku"],
    }
