"""Batch jobs as Batch Transform: the rows of a table go as lines through S3 to containers, and the answers come back."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from modeldeploy.backends.cloud.batch import RemoteBatch
from modeldeploy.backends.sagemaker import images
from modeldeploy.backends.sagemaker.batch_steps import Tools, TransformSteps
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.backends.sagemaker.transform import Setting, Transforms
from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring.job import Job, Request
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Ticket


class TransformBatch(RemoteBatch):
    """The batch family of the SageMaker backend."""

    def __init__(
        self,
        home: Path,
        provider: Provider,
        *,
        terms: Terms | None = None,
        pace: Pace | None = None,
        trust: Collection[str] = (),
        tables: Path | None = None,
        transforms: Transforms | None = None,
    ) -> None:
        self._tempo = pace or Pace()
        super().__init__(home / "sagemaker" / "batch", store=home / "store", pace=self._tempo, trust=trust)
        self._provider = provider
        self._terms = terms or Terms()
        self._tables = tables
        self._transforms = transforms or Transforms(provider.client)

    def _check(self, job: BatchSpec) -> None:
        if not self._provider.defaults.role:
            message = "a batch job needs the execution role that containers run as"
            raise ConfigurationError(message, hint="pass role=; docs/backends/sagemaker.md has its policy")
        self._image(Bundle.open(Path(job.model.uri), expect=job.model.digest))

    def _steps(self, ticket: Ticket, job: Job, asked: Request) -> TransformSteps:
        return TransformSteps(self._tools, ticket, job, asked)

    def _forget(self, job: Job) -> None:
        self._tools.forget(job)

    @property
    def _instance_type(self) -> str:
        return self._terms.instance_type or self._provider.defaults.instance_type

    def _image(self, bundle: Bundle) -> images.Image:
        return images.choose(
            bundle.manifest,
            region=self._provider.client.region,
            image=self._provider.defaults.image or None,
            gpu=images.is_gpu(self._instance_type),
            arm=images.is_arm(self._instance_type),
            tables=self._tables,
        )

    @property
    def _tools(self) -> Tools:
        defaults = self._provider.defaults
        setting = Setting(self._terms, self._instance_type, kms_key=defaults.kms_key, tags=dict(defaults.tags))
        return Tools(self._provider, self._transforms, setting, self._tempo, self._image)
