"""The steps of a job on Azure ML: its model is registered and gets a batch endpoint, its runs are jobs of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from modeldeploy.backends.azureml import entry, names, translate
from modeldeploy.backends.azureml.batch_runs import SCORER, EndpointRuns
from modeldeploy.backends.azureml.blobs import Blobs
from modeldeploy.backends.azureml.client import none_if_missing
from modeldeploy.backends.azureml.described import State
from modeldeploy.backends.azureml.entry import Environment
from modeldeploy.backends.azureml.errors import BusyError
from modeldeploy.backends.azureml.pace import Pace
from modeldeploy.backends.azureml.provider import Provider
from modeldeploy.backends.azureml.terms import Terms
from modeldeploy.backends.cloud.batch_state import State as JobState
from modeldeploy.backends.cloud.batch_steps import PLACE, Steps
from modeldeploy.backends.cloud.batch_work import Work
from modeldeploy.errors import OperationFailed
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring.job import Job, Request
from modeldeploy.serving.lines import SWITCH
from modeldeploy.values.names import short_hash
from modeldeploy.values.serving import Revision
from modeldeploy.values.ticket import Ticket


@attrs.frozen
class Tools:
    """What every step of every job needs."""

    provider: Provider
    blobs: Blobs
    terms: Terms
    pace: Pace

    @property
    def runs(self) -> EndpointRuns:
        """The jobs of the service."""
        return EndpointRuns(self.provider.client, self.blobs, self.terms)

    def stop(self, state: JobState) -> None:
        """Ask the run that is under way to stop, if there is one."""
        if state.open is not None:
            self.runs.stop(state.open.name)

    def drop(self, endpoint: str) -> None:
        """Ask for a job's endpoint to be gone; one that is gone is fine."""
        client = self.provider.client
        if none_if_missing(lambda: client.call(lambda sdk: sdk.batch_endpoints.get(endpoint))) is not None:
            client.begin(lambda sdk: sdk.batch_endpoints.begin_delete(name=endpoint), endpoint=endpoint)

    def forget(self, job: Job) -> None:
        """Take away what an earlier job of this name left, here and there."""
        state = JobState.of(job.entries())
        self.stop(state)
        if state.run:
            self.blobs.delete([each.key for each in self.blobs.below(f"{PLACE}/{job.name}/{state.run}/")])
        if state.model:
            self.drop(state.model)
        job.forget()


class EndpointSteps(Steps):
    """A ticket of a job on Azure ML."""

    def __init__(self, tools: Tools, ticket: Ticket, job: Job, asked: Request) -> None:
        super().__init__(tools.pace, ticket, job, asked)
        self._tools = tools
        self._provider = tools.provider

    def _work(self) -> Work:
        tools = self._tools
        return Work(self._job, self._asked, tools.blobs, tools.runs, terms=tools.terms, place=PLACE)

    def _stop_run(self, state: JobState) -> None:
        self._tools.stop(state)

    def _delete_model(self, name: str) -> None:
        self._tools.drop(name)

    # The model: registered, then an endpoint with one deployment; each is found done when it is repeated

    def _ship(self, work: Work) -> Ticket:
        try:
            return self._next_of_model(work)
        except BusyError as error:
            return self._waiting(work, f"waits: {error.message}", 0.0)

    def _next_of_model(self, work: Work) -> Ticket:
        name = self._endpoint(work)
        client = self._provider.client
        endpoint = none_if_missing(lambda: client.call(lambda sdk: sdk.batch_endpoints.get(name)))
        if endpoint is None:
            self._register()
            made = self._entity(name)
            client.begin(lambda sdk: sdk.batch_endpoints.begin_create_or_update(made), endpoint=name)
            return self._waiting(work, "the batch endpoint is being made", 0.0)
        if not _ready(endpoint, f"batch endpoint {name!r}"):
            return self._waiting(work, "the batch endpoint is being made", 0.0)
        found = none_if_missing(lambda: client.call(lambda sdk: sdk.batch_deployments.get(SCORER, name)))
        if found is None:
            self._deploy(name)
            return self._waiting(work, "the batch deployment is being made", 0.0)
        if not _ready(found, f"the deployment of batch endpoint {name!r}"):
            return self._waiting(work, "the batch deployment is being made", 0.0)
        work.use(name)
        return self._moved(work, "the model is there")

    def _endpoint(self, work: Work) -> str:
        """Name the job's endpoint: unique in a region, and the same for the same run."""
        access = self._provider.client.access
        mark = short_hash(access.subscription_id, access.workspace, self._job.name, work.state.run)
        return f"batch-{self._job.name[:16].strip('-')}-{mark}"

    @property
    def _revision(self) -> Revision:
        return Revision.of(self._asked.spec.model)

    def _bundle(self) -> Bundle:
        model = self._asked.spec.model
        return Bundle.open(Path(model.uri), expect=model.digest)

    def _environment(self) -> Environment:
        return entry.generated(self._bundle())

    def _register(self) -> None:
        self._bundle().verify()
        self._provider.put_model(self._revision)
        self._provider.put_environment(self._environment())

    def _entity(self, name: str) -> Any:
        from azure.ai.ml.entities import BatchEndpoint

        tags = {**self._provider.defaults.tags, "modeldeploy-job": self._job.name}
        return BatchEndpoint(name=name, description=f"made for batch job {self._job.name!r}", tags=tags)

    def _deploy(self, name: str) -> None:
        client = self._provider.client
        with entry.folder(batch=True) as code:
            made = self._deployment(name, code)
            client.begin(lambda sdk: sdk.batch_deployments.begin_create_or_update(made), endpoint=name)

    def _deployment(self, name: str, code: Path) -> Any:
        from azure.ai.ml.entities import (
            BatchRetrySettings,
            CodeConfiguration,
            ModelBatchDeployment,
            ModelBatchDeploymentSettings,
            ResourceConfiguration,
        )

        terms, model = self._tools.terms, self._asked.spec.model
        trusted = entry.variables(self._bundle(), tuple(self._asked.trust))
        settings = ModelBatchDeploymentSettings(
            mini_batch_size=1,
            max_concurrency_per_instance=terms.concurrency,
            output_action="summary_only",
            # A file that fails is found by what it did not give; the others go on.
            error_threshold=-1,
            retry_settings=BatchRetrySettings(max_retries=terms.retries, timeout=terms.timeout),
            environment_variables={SWITCH: "true", **trusted},
        )
        return ModelBatchDeployment(
            name=SCORER,
            endpoint_name=name,
            model=names.reference(model.name, names.model_version(model)),
            environment=self._environment().reference,
            code_configuration=CodeConfiguration(code=str(code), scoring_script=entry.SCRIPT),
            compute=terms.compute,
            resources=ResourceConfiguration(instance_count=max(1, self._asked.spec.workers)),
            settings=settings,
            tags=translate.tags(name, self._provider.defaults),
        )


def _ready(entity: Any, what: str) -> bool:
    """Say whether it can be used; OperationFailed when it never will."""
    state = State.of(entity.provisioning_state)
    if state.broken:
        message = f"{what} ended as {state.value}"
        raise OperationFailed(message, hint="look at it in the workspace; run the same job again to go on")
    return state is State.SUCCEEDED
