"""Which operation answers at which path."""

from __future__ import annotations

from modeldeploy.simulate.azureml.assets import Assets
from modeldeploy.simulate.azureml.parts import Parts
from modeldeploy.simulate.azureml.routes import Routes
from modeldeploy.simulate.azureml.world import NAMESPACE

_ENDPOINT = "/onlineEndpoints/{endpoint}"
_DEPLOYMENT = f"{_ENDPOINT}/deployments/{{deployment}}"


def routes(parts: Parts) -> Routes:
    """Name the operations that are simulated."""
    found = Routes()
    workspace = parts.world.site.id
    _workspace(found, parts, workspace)
    _assets(found, parts, workspace)
    _online(found, parts, workspace)
    _operations(found, parts)
    return found


def _workspace(found: Routes, parts: Parts, at: str) -> None:
    there = parts.workspace
    found.add("Workspaces_Get", "GET", at, there.show)
    found.add("Datastores_List", "GET", f"{at}/datastores", there.datastores)
    found.add("Datastores_Get", "GET", f"{at}/datastores/{{name}}", there.datastore)
    found.add("Datastores_ListSecrets", "POST", f"{at}/datastores/{{name}}/listSecrets", there.secrets)
    upload = f"{at}/codes/{{name}}/versions/{{version}}/startPendingUpload"
    found.add("CodeVersions_StartPendingUpload", "POST", upload, there.pending_upload)


def _assets(found: Routes, parts: Parts, at: str) -> None:
    for shelf in (parts.shelves.codes, parts.shelves.models, parts.shelves.environments):
        _asset(found, shelf, at)


def _asset(found: Routes, shelf: Assets, at: str) -> None:
    called = shelf.kind.plural.removesuffix("s").capitalize()
    name = f"{at}/{shelf.kind.plural}/{{name}}"
    found.add(f"{called}Containers_Get", "GET", name, shelf.container)
    found.add(f"{called}Versions_List", "GET", f"{name}/versions", shelf.versions)
    found.add(f"{called}Versions_Get", "GET", f"{name}/versions/{{version}}", shelf.show)
    found.add(f"{called}Versions_CreateOrUpdate", "PUT", f"{name}/versions/{{version}}", shelf.put)


def _online(found: Routes, parts: Parts, at: str) -> None:
    endpoints, deployments = parts.endpoints, parts.deployments
    endpoint, deployment = f"{at}{_ENDPOINT}", f"{at}{_DEPLOYMENT}"
    found.add("OnlineEndpoints_List", "GET", f"{at}/onlineEndpoints", endpoints.page)
    found.add("OnlineEndpoints_Get", "GET", endpoint, endpoints.show)
    found.add("OnlineEndpoints_CreateOrUpdate", "PUT", endpoint, endpoints.put)
    found.add("OnlineEndpoints_Delete", "DELETE", endpoint, endpoints.delete)
    found.add("OnlineEndpoints_ListKeys", "POST", f"{endpoint}/listKeys", endpoints.keys)
    found.add("OnlineEndpoints_RegenerateKeys", "POST", f"{endpoint}/regenerateKeys", endpoints.regenerate)
    found.add("OnlineEndpoints_GetToken", "POST", f"{endpoint}/token", endpoints.token)
    found.add("OnlineDeployments_List", "GET", f"{endpoint}/deployments", deployments.page)
    found.add("OnlineDeployments_Get", "GET", deployment, deployments.show)
    found.add("OnlineDeployments_CreateOrUpdate", "PUT", deployment, deployments.put)
    found.add("OnlineDeployments_Delete", "DELETE", deployment, deployments.delete)
    found.add("OnlineDeployments_GetLogs", "POST", f"{deployment}/getLogs", deployments.logs)


def _operations(found: Routes, parts: Parts) -> None:
    at = f"/subscriptions/{parts.world.site.subscription}/providers/{NAMESPACE}/locations/{{region}}"
    operations = parts.operations
    found.add(
        "Operations_Status",
        "GET",
        f"{at}/mfeOperationsStatus/{{operation}}",
        lambda request, **names: operations.status(request, names["operation"]),
    )
    found.add(
        "Operations_Result",
        "GET",
        f"{at}/mfeOperationResults/{{operation}}",
        lambda request, **names: operations.outcome(request, names["operation"]),
    )
