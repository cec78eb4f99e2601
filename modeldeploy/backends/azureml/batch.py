"""Batch jobs by batch endpoints: the rows of a table go as lines through the workspace's storage to its cluster, and the answers come back."""

from __future__ import annotations

from pathlib import Path

from modeldeploy.backends.azureml import entry
from modeldeploy.backends.azureml.batch_steps import EndpointSteps, Tools
from modeldeploy.backends.azureml.blobs import Blobs
from modeldeploy.backends.azureml.pace import Pace
from modeldeploy.backends.azureml.provider import Provider
from modeldeploy.backends.azureml.terms import Terms
from modeldeploy.backends.cloud.batch import RemoteBatch
from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring.job import Job, Request
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Ticket


class EndpointBatch(RemoteBatch):
    """The batch family of the Azure ML backend."""

    def __init__(self, home: Path, provider: Provider, *, terms: Terms, pace: Pace) -> None:
        super().__init__(home / "azureml" / "batch", store=home / "store", pace=pace)
        self._terms = terms
        self._blobs = Blobs(provider.client)
        self._tools = Tools(provider, self._blobs, terms, pace)

    def _check(self, job: BatchSpec) -> None:
        if not self._terms.compute:
            message = "a batch job needs the name of a compute cluster of the workspace"
            raise ConfigurationError(
                message, hint="AzureML(batch_terms=Terms(compute='cpu-cluster')), or batch_compute="
            )
        bundle = Bundle.open(Path(job.model.uri), expect=job.model.digest)
        entry.variables(bundle, tuple(self._request(job).trust))

    def _steps(self, ticket: Ticket, job: Job, asked: Request) -> EndpointSteps:
        return EndpointSteps(self._tools, ticket, job, asked)

    def _forget(self, job: Job) -> None:
        self._tools.forget(job)

    def close(self) -> None:
        """Close connections."""
        self._blobs.close()
