"""Batch jobs: begun by a call of an endpoint, told, listed, canceled."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from modeldeploy.simulate.azureml.asking import DEPLOYMENT
from modeldeploy.simulate.azureml.batch_endpoint import BatchDeployment, BatchEndpoint
from modeldeploy.simulate.azureml.batch_endpoints import BatchEndpoints
from modeldeploy.simulate.azureml.batch_job import CANCEL_REQUESTED, ENDED, Job, invoked, job_told, run_told
from modeldeploy.simulate.azureml.endpoint import SUCCEEDED
from modeldeploy.simulate.azureml.errors import ServiceError, bad_request, conflict, not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.materials import place_of
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import World

_INSTEAD = ("errorThreshold", "miniBatchSize", "outputFileName", "retrySettings")


@attrs.define(eq=False)
class BatchJobs:
    """All jobs that were ever begun."""

    world: World
    endpoints: BatchEndpoints
    run: Callable[[Job], None]
    """Does the work of a job."""
    items: dict[str, Job] = attrs.field(factory=dict)

    def invoke(self, request: Request, endpoint: str) -> Answer:
        """Begin a job. Two equal calls begin two jobs."""
        asked = _lowered(request.json().get("properties") or {})
        found, deployment = self._chosen(endpoint, request.headers.get(DEPLOYMENT))
        job = self._made(found, deployment, asked)
        with self.world.lock:
            if job.name in self.items:
                raise conflict(f"A job with the name {job.name} already exists.")
            self.items[job.name] = job
            told = invoked(self.world, job)
        self.world.go(job.name, functools.partial(self.run, job))
        return answer(201, told)

    def _chosen(self, endpoint: str, named: str | None) -> tuple[BatchEndpoint, BatchDeployment]:
        found = self.endpoints.get(endpoint)
        if not (named or found.default):
            raise bad_request(f"The endpoint {endpoint} has no default deployment.")
        _endpoint, deployment = self.endpoints.find(endpoint, named or found.default)
        if deployment.state != SUCCEEDED:
            raise bad_request(f"The deployment {deployment.name} is in {deployment.state} provisioning state.")
        return found, deployment

    def _made(self, endpoint: BatchEndpoint, deployment: BatchDeployment, asked: Json) -> Job:
        name = str(asked.get("name") or f"batchjob-{uuid.uuid4()}")
        child = str(uuid.uuid4())
        settings = {
            **deployment.asked["properties"],
            **{key: asked[key] for key in _INSTEAD if asked.get(key) is not None},
        }
        uris = inputs(asked)
        if not uris:
            raise bad_request("A batch job needs input data: a folder or a file.")
        for uri in uris:
            place_of(uri, self.world.site.container)
        output = self._output(asked, child)
        return Job(name, child, endpoint.name, deployment.name, asked, settings, output, Born.now(self.world))

    def _output(self, asked: Json, child: str) -> tuple[str, str]:
        """Find where the output goes: below the run that makes it, or to the folder that the call names."""
        uris = [each.get("uri") for each in (asked.get("outputData") or {}).values() if each.get("uri")]
        path = (asked.get("outputDataset") or {}).get("path")
        store = self.world.site.container
        if uris:
            container, folder = place_of(str(uris[0]), store)
            if not self.endpoints.materials.blobs.has(container):
                raise bad_request(f"There is no container {container} for the output.")
            return container, folder.rstrip("/")
        return store, str(path).strip("/") if path else f"azureml/{child}/score"

    def get(self, name: str) -> Job:
        """Find a job; the service's error when it is not there."""
        with self.world.lock:
            found = self.items.get(name)
        if found is None:
            raise not_found(f"Job {name} could not be found in workspace {self.world.site.workspace}.")
        return found

    def show(self, _request: Request, name: str) -> Answer:
        """Answer a job."""
        found = self.get(name)
        with self.world.lock:
            return answer(200, job_told(self.world, found))

    def page(self, _request: Request) -> Answer:
        """Answer all jobs, the newest first."""
        with self.world.lock:
            return answer(200, {"value": [job_told(self.world, each) for each in reversed(self.items.values())]})

    def of_endpoint(self, _request: Request, endpoint: str, deployment: str = "") -> Answer:
        """Answer the jobs of an endpoint, or of one of its deployments."""
        self.endpoints.get(endpoint)
        with self.world.lock:
            found = [each for each in self.items.values() if each.endpoint.lower() == endpoint.lower()]
            found = [each for each in found if not deployment or each.deployment.lower() == deployment.lower()]
            return answer(200, {"value": [invoked(self.world, each) for each in reversed(found)]})

    def cancel(self, _request: Request, name: str) -> Answer:
        """Ask a job to stop."""
        found = self.get(name)
        with self.world.lock:
            if found.status in ENDED:
                raise bad_request(f"The job {name} is in {found.status} state and cannot be canceled.")
            found.status = CANCEL_REQUESTED
            found.stop.set()
        return Answer(202)

    def stop(self) -> None:
        """Stop all jobs, for the simulator ends."""
        with self.world.lock:
            for job in self.items.values():
                job.stop.set()

    def children(self, _request: Request, run: str) -> Answer:
        """Answer the runs below a run: a job has one."""
        with self.world.lock:
            job = self._of_run(run)
            return answer(200, {"value": [run_told(job, job.child)] if run == job.name else []})

    def run_data(self, request: Request) -> Answer:
        """Answer what run history knows of a run."""
        run = str(request.json().get("runId"))
        with self.world.lock:
            return answer(200, {"runMetadata": run_told(self._of_run(run), run)})

    def show_run(self, _request: Request, run: str) -> Answer:
        """Answer a run."""
        with self.world.lock:
            return answer(200, run_told(self._of_run(run), run))

    def _of_run(self, run: str) -> Job:
        for job in self.items.values():
            if run in {job.name, job.child}:
                return job
        raise not_found(f"Run {run} could not be found.")


def inputs(asked: Mapping[str, Any]) -> list[str]:
    """Give the URIs of a call's inputs."""
    found: list[str] = []
    for each in (asked.get("inputData") or {}).values():
        kind = str(each.get("jobInputType", "")).lower()
        if kind == "literal":
            continue
        if kind not in {"urifolder", "urifile"} or not each.get("uri"):
            raise ServiceError(
                501, "NotSimulated", f"The rehearsal of Azure ML does not simulate batch inputs of type {kind}."
            )
        found.append(str(each["uri"]))
    return found


def _lowered(asked: Mapping[str, Any]) -> Json:
    """Write the names of members with a small letter first: the documented calls have them with a capital one."""
    found = {key[:1].lower() + key[1:]: value for key, value in asked.items()}
    for name in ("inputData", "outputData"):
        if isinstance(found.get(name), dict):
            found[name] = {
                key: {inner[:1].lower() + inner[1:]: value for inner, value in each.items()}
                for key, each in found[name].items()
            }
    return found
