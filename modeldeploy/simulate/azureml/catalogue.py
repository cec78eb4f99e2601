"""Which operation answers at which path, and the models of the SDK that its exchange is held against."""

from __future__ import annotations

import functools
from collections.abc import Callable

from modeldeploy.simulate.azureml.assets import Assets
from modeldeploy.simulate.azureml.exchange import Answer, Request
from modeldeploy.simulate.azureml.parts import Parts
from modeldeploy.simulate.azureml.routes import Routes
from modeldeploy.simulate.azureml.world import NAMESPACE


def routes(parts: Parts) -> Routes:
    """Name the operations that are simulated."""
    found = Routes()
    at = parts.world.site.id
    _workspace(found, parts, at)
    for shelf in (parts.materials.codes, parts.materials.models, parts.materials.environments):
        _asset(found, shelf, at)
    _online_endpoints(found, parts, at)
    _online_deployments(found, parts, at)
    _batch_endpoints(found, parts, at)
    _jobs(found, parts, at)
    _monitor(found, parts, at)
    _operations(found, parts)
    return found


def _workspace(found: Routes, parts: Parts, at: str) -> None:
    there, store = parts.workspace, f"{at}/datastores/{{name}}"
    found.add("Workspaces_Get", f"GET {at}", there.show, tells="Workspace")
    found.add("Datastores_List", f"GET {at}/datastores", there.datastores, tells="[Datastore]")
    found.add("Datastores_Get", f"GET {store}", there.datastore, tells="Datastore")
    found.add("Datastores_ListSecrets", f"POST {store}/listSecrets", there.secrets, tells="DatastoreSecrets")
    found.add(
        "CodeVersions_StartPendingUpload",
        f"POST {at}/codes/{{name}}/versions/{{version}}/startPendingUpload",
        there.pending_upload,
        asks="PendingUploadRequestDto",
        tells="PendingUploadResponseDto",
    )


def _asset(found: Routes, shelf: Assets, at: str) -> None:
    called = shelf.kind.plural.removesuffix("s").capitalize()
    name = f"{at}/{shelf.kind.plural}/{{name}}"
    version, model = f"{name}/versions/{{version}}", f"{called}Version"
    found.add(f"{called}Containers_Get", f"GET {name}", shelf.container, tells=f"{called}Container")
    found.add(f"{called}Versions_List", f"GET {name}/versions", shelf.versions, tells=f"[{model}]")
    found.add(f"{called}Versions_Get", f"GET {version}", shelf.show, tells=model)
    found.add(f"{called}Versions_CreateOrUpdate", f"PUT {version}", shelf.put, asks=model, tells=model)


def _online_endpoints(found: Routes, parts: Parts, at: str) -> None:
    there, one, model = parts.endpoints, f"{at}/onlineEndpoints/{{endpoint}}", "OnlineEndpoint"
    found.add("OnlineEndpoints_List", f"GET {at}/onlineEndpoints", there.page, tells=f"[{model}]")
    found.add("OnlineEndpoints_Get", f"GET {one}", there.show, tells=model)
    found.add("OnlineEndpoints_CreateOrUpdate", f"PUT {one}", there.put, asks=model, tells=model)
    found.add("OnlineEndpoints_Delete", f"DELETE {one}", there.delete)
    found.add("OnlineEndpoints_ListKeys", f"POST {one}/listKeys", there.keys, tells="EndpointAuthKeys")
    found.add("OnlineEndpoints_GetToken", f"POST {one}/token", there.token, tells="EndpointAuthToken")
    found.add(
        "OnlineEndpoints_RegenerateKeys",
        f"POST {one}/regenerateKeys",
        there.regenerate,
        asks="RegenerateEndpointKeysRequest",
    )


def _online_deployments(found: Routes, parts: Parts, at: str) -> None:
    there, every = parts.deployments, f"{at}/onlineEndpoints/{{endpoint}}/deployments"
    one, model = f"{every}/{{deployment}}", "OnlineDeployment"
    found.add("OnlineDeployments_List", f"GET {every}", there.page, tells=f"[{model}]")
    found.add("OnlineDeployments_Get", f"GET {one}", there.show, tells=model)
    found.add("OnlineDeployments_CreateOrUpdate", f"PUT {one}", there.put, asks=model, tells=model)
    found.add("OnlineDeployments_Delete", f"DELETE {one}", there.delete)
    found.add(
        "OnlineDeployments_GetLogs",
        f"POST {one}/getLogs",
        there.logs,
        asks="DeploymentLogsRequest",
        tells="DeploymentLogs",
    )


def _batch_endpoints(found: Routes, parts: Parts, at: str) -> None:
    there, endpoint, deployment = parts.batch, "BatchEndpoint", "BatchDeployment"
    one = f"{at}/batchEndpoints/{{endpoint}}"
    every, each = f"{one}/deployments", f"{one}/deployments/{{deployment}}"
    found.add("BatchEndpoints_List", f"GET {at}/batchEndpoints", there.page, tells=f"[{endpoint}]")
    found.add("BatchEndpoints_Get", f"GET {one}", there.show, tells=endpoint)
    found.add("BatchEndpoints_CreateOrUpdate", f"PUT {one}", there.put, asks=endpoint, tells=endpoint)
    found.add("BatchEndpoints_Delete", f"DELETE {one}", there.delete)
    found.add("BatchDeployments_List", f"GET {every}", there.deployments, tells=f"[{deployment}]")
    found.add("BatchDeployments_Get", f"GET {each}", there.show_deployment, tells=deployment)
    put = there.put_deployment
    found.add("BatchDeployments_CreateOrUpdate", f"PUT {each}", put, asks=deployment, tells=deployment)
    found.add("BatchDeployments_Delete", f"DELETE {each}", there.delete_deployment)


def _jobs(found: Routes, parts: Parts, at: str) -> None:
    there, history, front = (
        parts.jobs,
        f"/history/v1.0{at}",
        f"/mferp/managementfrontend{at}/batchEndpoints/{{endpoint}}",
    )
    found.add("Jobs_List", f"GET {at}/jobs", there.page, tells="[JobBase]")
    found.add("Jobs_Get", f"GET {at}/jobs/{{name}}", there.show, tells="JobBase")
    found.add("Jobs_Cancel", f"POST {at}/jobs/{{name}}/cancel", there.cancel)
    found.add("BatchJobs_List", f"GET {front}/jobs", there.of_endpoint)
    found.add("BatchJobs_List", f"GET {front}/deployments/{{deployment}}/jobs", there.of_endpoint)
    found.add("Runs_Get", f"GET {history}/runs/{{run}}", there.show_run)
    found.add("Runs_GetChild", f"GET {history}/runs/{{run}}/children", there.children)
    found.add("Runs_GetRunData", f"POST {history}/rundata", there.run_data)


def _monitor(found: Routes, parts: Parts, at: str) -> None:
    insights = "/providers/microsoft.insights"
    endpoint = f"{at}/onlineEndpoints/{{endpoint}}{insights}"
    found.add("Metrics_List", f"GET {endpoint}/metrics", parts.monitor.metrics)
    found.add("MetricDefinitions_List", f"GET {endpoint}/metricDefinitions", parts.monitor.definitions)
    there, every = parts.autoscale, f"{parts.world.site.group}{insights}/autoscalesettings"
    found.add("AutoscaleSettings_List", f"GET {every}", there.page)
    found.add("AutoscaleSettings_Get", f"GET {every}/{{name}}", there.show)
    found.add("AutoscaleSettings_CreateOrUpdate", f"PUT {every}/{{name}}", there.put)
    found.add("AutoscaleSettings_Delete", f"DELETE {every}/{{name}}", there.delete)


def _operations(found: Routes, parts: Parts) -> None:
    at = f"/subscriptions/{parts.world.site.subscription}/providers/{NAMESPACE}/locations/{{region}}"
    status = functools.partial(_anywhere, parts.operations.status)
    outcome = functools.partial(_anywhere, parts.operations.outcome)
    found.add("Operations_Status", f"GET {at}/mfeOperationsStatus/{{operation}}", status)
    found.add("Operations_Result", f"GET {at}/mfeOperationResults/{{operation}}", outcome)


def _anywhere(handler: Callable[[Request, str], Answer], request: Request, *, region: str, operation: str) -> Answer:
    """Answer for an operation of the only region that there is."""
    del region
    return handler(request, operation)
