"""Batch jobs as Batch Transform: the table stays here, its rows go as lines through S3 to containers, and the answers come back.

A job is planned, checked, joined and published by ``modeldeploy.scoring``, as on this machine; the service only predicts. Where the job
stands is in its directory here (``HOME/sagemaker/batch/NAME``) and in the bucket.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import attrs

from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.sagemaker import images, names
from modeldeploy.backends.sagemaker.batch_work import Terms, Work
from modeldeploy.backends.sagemaker.described import tag_list
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.ship import Position, Shipment, Shipper
from modeldeploy.backends.sagemaker.transform import Transforms
from modeldeploy.errors import ConfigurationError, ConflictError, ModelDeployError, UnsupportedError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.store import Store
from modeldeploy.scoring import asking, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Progress, Request
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.names import check_name
from modeldeploy.values.ticket import Action, Phase, Ticket


class TransformBatch:
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
        self._home = home
        self._provider = provider
        self._terms = terms or Terms()
        self._pace = pace or Pace()
        self._trust = tuple(trust)
        self._tables = tables
        self._transforms = transforms or Transforms(provider.client)

    # Asking

    def put_job(self, job: BatchSpec) -> Ticket:
        """Check everything that can be checked without reading the input through or asking the service; nothing is written."""
        request = self._request(job)
        planning.inspect(job)
        asking.check_output(job)
        if not self._provider.defaults.role:
            message = "a batch job needs the execution role that containers run as"
            raise ConfigurationError(message, hint="pass role=; docs/backends/sagemaker.md has its policy")
        self._image(Bundle.open(Path(job.model.uri), expect=job.model.digest))
        asking.begins_anew(self._job(job.name), request)
        return Ticket(Action.PUT_JOB, job.name, {"job": to_json(job)})

    def _job(self, name: str) -> Job:
        return Job(self._home / "sagemaker" / "batch" / check_name(name, "job name"))

    def _request(self, spec: BatchSpec) -> Request:
        return asking.request(spec, {*self._trust, *Store(self._home / "store").trusted()})

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
        return Tools(self._provider, self._transforms, setting, self._pace, self._image)

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a job."""
        if ticket.phase.ended:
            return ticket
        job = self._job(ticket.target)
        job.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lease = Lease.take(job.lease)
        except ConflictError:
            return waiting(ticket, self._pace.poll(0), "another process is at it")
        try:
            if ticket.step == "start":
                return self._begin(ticket, job, self._request(from_json(BatchSpec, ticket.wanted["job"])))
            return Steps(self._tools, ticket, job, job.request()).next()
        finally:
            lease.release()

    def _begin(self, ticket: Ticket, job: Job, asked: Request) -> Ticket:
        """Begin a run, unless the job is done, or was begun by this very ticket or by a driver that died."""
        known, progress = job.exists(), job.progress()
        anew = asking.begins_anew(job, asked, ours=True)
        if known and not anew and publish.finished(job) and progress.phase is Phase.SUCCEEDED:
            return ended(ticket, progress)
        if known and anew:
            self._tools.forget(job)
        job.put(asked)
        if known and not anew and progress.phase is Phase.RUNNING and not job.cancelled:
            return moved(ticket, Step(WORK), note=progress.note)
        job.allow()
        job.show(Progress(note="looking at the input"))
        return Steps(self._tools, ticket, job, asked).begin()

    # Stopping

    def cancel(self, ticket: Ticket) -> Ticket:
        """Let the job stop: a transform job under way is stopped, which discards its output; the same job goes on from there."""
        if ticket.action is not Action.PUT_JOB:
            message = f"{ticket.action.value} is no batch job"
            raise UnsupportedError(message, capability="cancel")
        job = self._job(ticket.target)
        if ticket.phase.ended or not job.exists():
            return ticket if ticket.phase.ended else attrs.evolve(ticket, phase=Phase.CANCELLED, note="never begun")
        progress = job.progress()
        if progress.phase.ended:
            return ended(ticket, progress)
        job.ask_to_stop()
        return moved(ticket, Step(WORK), note="stopping")

    # Looking

    def observe_job(self, name: str) -> BatchState | None:
        """Read the job as it is now."""
        job = self._job(name)
        if not job.exists():
            return None
        progress = job.progress()
        return BatchState(
            name=name,
            phase=progress.phase,
            output=job.request().spec.output,
            rows_done=progress.rows_done,
            rows_total=progress.rows_total,
            bad_rows=progress.bad_rows,
            quarantine=progress.quarantine,
            note=progress.note,
        )

    def jobs(self) -> Iterable[str]:
        """Name every job of this home."""
        folder = self._home / "sagemaker" / "batch"
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return [name for name in found if self._job(name).exists()]
