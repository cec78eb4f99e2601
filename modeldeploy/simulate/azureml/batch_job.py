"""A batch job as it is, and as the two interfaces tell it."""

from __future__ import annotations

import threading

import attrs

from modeldeploy.simulate.azureml import resources
from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import NAMESPACE, World, stamp

PREPARING, RUNNING, FINALIZING = "Preparing", "Running", "Finalizing"
COMPLETED, FAILED, CANCELED, CANCEL_REQUESTED = "Completed", "Failed", "Canceled", "CancelRequested"
ENDED = frozenset({COMPLETED, FAILED, CANCELED})
_EXPERIMENT = "batch"


@attrs.define(eq=False)
class Job:
    """One job: ``settings`` are the deployment's properties with what the call says instead."""

    name: str
    child: str
    """The run that does the work, below which the output lies."""
    endpoint: str
    deployment: str
    asked: Json
    settings: Json
    output: tuple[str, str]
    """Container and folder of the output."""
    born: Born
    status: str = PREPARING
    error: str = ""
    started: float = 0.0
    ended: float = 0.0
    stop: threading.Event = attrs.field(factory=threading.Event)

    @property
    def tags(self) -> dict[str, str]:
        """By which the SDK tells that it is a batch job."""
        return {
            "azureml.batchrun": "true",
            "azureml.deploymentname": self.deployment,
            "azureml.jobtype": "azureml.batchjob",
        }


def job_told(world: World, job: Job) -> Json:
    """Write a job as Resource Manager tells it: a pipeline of one step."""
    uri = f"azureml://datastores/workspaceblobstore/paths/{job.output[1]}/"
    properties: Json = {
        "jobType": "Pipeline",
        "description": None,
        "displayName": job.name,
        "experimentName": _EXPERIMENT,
        "status": job.status,
        "isArchived": False,
        "computeId": job.settings.get("compute"),
        "tags": job.tags,
        "properties": {"azureml.deploymentname": job.deployment, "azureml.endpointname": job.endpoint},
        "services": {"Tracking": {"endpoint": world.url, "jobServiceType": "Tracking", "port": None, "properties": {}}},
        "inputs": {},
        "outputs": {"score": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": uri}},
        "jobs": {},
        "settings": {"_source": "REMOTE.WORKSPACE.COMPONENT"},
    }
    return resources.resource(world, f"jobs/{job.name}", "jobs", job.born, properties)


def invoked(world: World, job: Job) -> Json:
    """Write a job as the endpoint's own address tells it."""
    properties = {
        **{key: value for key, value in job.asked.items() if value is not None},
        "name": job.name,
        "status": job.status,
        "compute": {"target": job.settings.get("compute")},
        "tags": job.tags,
        "errorThreshold": job.settings["errorThreshold"],
        "miniBatchSize": job.settings["miniBatchSize"],
        "outputFileName": job.settings["outputFileName"],
        "retrySettings": job.settings["retrySettings"],
        "interactionEndpoints": {"Tracking": {"jobEndpointType": "Tracking", "endpoint": world.url}},
    }
    return {
        "id": f"{world.site.id}/batchEndpoints/{job.endpoint}/jobs/{job.name}",
        "name": job.name,
        "type": f"{NAMESPACE}/workspaces/batchEndpoints/jobs",
        "properties": properties,
        "systemData": job.born.system_data(),
    }


def run_told(job: Job, run: str) -> Json:
    """Write one of the two runs of a job as run history tells it."""
    told: Json = {
        "runId": run,
        "rootRunId": job.name,
        "parentRunId": job.name if run == job.child else None,
        "status": job.status,
        "displayName": "batchscoring" if run == job.child else job.name,
        "runType": "azureml.StepRun" if run == job.child else "azureml.PipelineRun",
        "createdUtc": stamp(job.born.created),
        "tags": job.tags,
        "properties": {},
        "outputs": {},
    }
    if job.started:
        told["startTimeUtc"] = stamp(job.started)
    if job.ended:
        told["endTimeUtc"] = stamp(job.ended)
    if job.error:
        told["error"] = {"error": {"code": "UserError", "message": job.error}}
    return told
