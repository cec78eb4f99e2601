"""Batch jobs by batch prediction: the rows of a table go as lines through Cloud Storage to replicas of the model, and the answers come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modeldeploy.backends.cloud.batch import RemoteBatch
from modeldeploy.backends.vertex import entry
from modeldeploy.backends.vertex.batch_steps import PredictionSteps, Tools
from modeldeploy.backends.vertex.entry import Container
from modeldeploy.backends.vertex.pace import Pace
from modeldeploy.backends.vertex.provider import Provider
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring.job import Job, Request
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Ticket


class PredictionBatch(RemoteBatch):
    """The batch family of the Vertex AI backend."""

    def __init__(
        self, home: Path, provider: Provider, *, terms: Terms, pace: Pace, container: Callable[[Bundle], Container]
    ) -> None:
        super().__init__(home / "vertex" / "batch", store=home / "store", pace=pace)
        self._tools = Tools(provider, terms, pace, container)

    def _check(self, job: BatchSpec) -> None:
        bundle = Bundle.open(Path(job.model.uri), expect=job.model.digest)
        entry.variables(bundle, tuple(self._request(job).trust))

    def _steps(self, ticket: Ticket, job: Job, asked: Request) -> PredictionSteps:
        return PredictionSteps(self._tools, ticket, job, asked)

    def _forget(self, job: Job) -> None:
        self._tools.forget(job)
