"""Batch jobs as Batch Transform: the table stays here, its rows go as lines through S3 to containers, and the answers come back.

A job is planned, checked, joined and published by ``modeldeploy.scoring``, as on this machine; the service only predicts. Where the job
stands is in its directory here (``HOME/sagemaker/batch/NAME``) and in the bucket.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import attrs

from modeldeploy.backends.sagemaker import images, names
from modeldeploy.backends.sagemaker.batch_work import Work
from modeldeploy.backends.sagemaker.described import tag_list
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.ship import Position, Shipment, Shipper
from modeldeploy.backends.sagemaker.steps import Step, moved, waiting
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.backends.sagemaker.transform import Setting, Transforms
from modeldeploy.errors import ConfigurationError, ConflictError, ModelDeployError, UnsupportedError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.store import Store
from modeldeploy.scoring import asking, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Progress, Request
from modeldeploy.scoring.runner import full
from modeldeploy.scoring.worker import FULL
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.names import check_name
from modeldeploy.values.ticket import Action, Phase, Ticket

PLACE = "modeldeploy/batch"
_SHIP, _WORK = "ship", "work"
_SENDING = 0.2
"""Share of the work that sending a part is, in what is shown."""
_STOPPED = "stopped; what is done is kept"


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
        self._transforms = transforms or Transforms(provider.client)
        self._home = home
        self._provider = provider
        self._terms = terms or Terms()
        self._pace = pace or Pace()
        self._trust = tuple(trust)
        self._tables = tables

    # Asking

    def put_job(self, job: BatchSpec) -> Ticket:
        """Check everything that can be checked without reading the input through or asking the service; nothing is written."""
        request = self._request(job)
        planning.inspect(job)
        asking.check_output(job)
        if not self._provider.defaults.role:
            message = "a batch job needs an execution role"
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
        defaults = self._provider.defaults
        gpu = self._instance_type.removeprefix("ml.")[:1] in {"g", "p"}
        return images.choose(
            bundle.manifest,
            region=self._provider.client.region,
            image=defaults.image or None,
            gpu=gpu,
            tables=self._tables,
        )

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a job."""
        if ticket.phase.ended:
            return ticket
        job = self._job(ticket.target)
        if ticket.step == "start":
            asked = self._request(from_json(BatchSpec, ticket.wanted["job"]))
            anew = asking.begins_anew(job, asked)
        else:
            anew, asked = False, job.request()
        job.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lease = Lease.take(job.lease)
        except ConflictError:
            return waiting(ticket, self._pace.poll(0), "another process is at it")
        try:
            return (
                self._begin(ticket, job, asked, anew=anew)
                if ticket.step == "start"
                else self._go_on(ticket, job, asked)
            )
        finally:
            lease.release()

    def _begin(self, ticket: Ticket, job: Job, asked: Request, *, anew: bool) -> Ticket:
        progress = job.progress()
        if not anew and job.exists():
            if publish.finished(job) and progress.phase is Phase.SUCCEEDED:
                return _ended(ticket, progress)
            if progress.phase is Phase.RUNNING and not job.cancelled:
                # This very ticket was begun before, and its answer was lost.
                return moved(ticket, Step(_WORK), note=progress.note)
        if anew and job.exists():
            job.forget()
        job.put(asked)
        job.allow()
        job.show(Progress(note="looking at the input"))
        return self._guarded(ticket, job, lambda: self._open(ticket, job, asked))

    def _open(self, ticket: Ticket, job: Job, asked: Request) -> Ticket:
        self._work(job, asked).begin()
        return moved(ticket, Step(_WORK), note="looking at the input", fraction=0.0)

    def _work(self, job: Job, asked: Request) -> Work:
        provider = self._provider
        defaults = provider.defaults
        tags = {**defaults.tags, "modeldeploy:job": job.name}
        setting = Setting(self._terms, self._instance_type, kms_key=defaults.kms_key, tags=tags)
        return Work(job, asked, provider.storage, self._transforms, setting=setting, place=PLACE)

    def _go_on(self, ticket: Ticket, job: Job, asked: Request) -> Ticket:
        return self._guarded(ticket, job, lambda: self._step(ticket, job, asked))

    def _guarded(self, ticket: Ticket, job: Job, act: Callable[[], Ticket]) -> Ticket:
        """Do a step; what cannot be repeated ends the job with its reason, and nothing at the service goes on costing money."""
        try:
            return act()
        except ModelDeployError as error:
            if error.transient:
                raise
            return self._fail(ticket, job, str(error))
        except OSError as error:
            place = str(error.filename or job.parts)
            text = (
                str(full(place, job))
                if error.errno in FULL
                else f"{place!r} cannot be read or written: {error.strerror}"
            )
            return self._fail(ticket, job, text)

    def _fail(self, ticket: Ticket, job: Job, note: str) -> Ticket:
        quarantine = str(job.quarantine) if job.quarantine.exists() else None
        job.show(attrs.evolve(job.progress(), phase=Phase.FAILED, note=note, quarantine=quarantine))
        try:
            self._work(job, job.request()).stop()
        except (ModelDeployError, OSError):
            # The job's own failure is what must be told.
            return ticket.failed(note)
        return ticket.failed(note)

    def _step(self, ticket: Ticket, job: Job, asked: Request) -> Ticket:
        progress = job.progress()
        if progress.phase.ended:
            return _ended(ticket, progress)
        work = self._work(job, asked)
        if work.state.published:
            return self._finish(ticket, job, work)
        if job.cancelled:
            return self._stop(ticket, job, work)
        if not work.state.model:
            return self._ship(ticket, job, asked, work)
        return self._transform(ticket, job, work)

    # The model

    def _ship(self, ticket: Ticket, job: Job, asked: Request, work: Work) -> Ticket:
        bundle = Bundle.open(Path(asked.spec.model.uri), expect=asked.spec.model.digest)
        shipper = Shipper(self._provider.storage, prefix=work.place)
        step = Step.of(ticket)
        position = shipper.advance(bundle, Position.load(step.about if step.name == _SHIP else ""))
        if not position.done:
            return self._moved(ticket, job, work, "sends the model", Step(_SHIP, position.dump()))
        shipment = shipper.shipment(bundle, self._image(bundle), trust=asked.trust)
        work.use(self._put_model(job, shipment))
        return self._moved(ticket, job, work, "the model is there")

    def _put_model(self, job: Job, shipment: Shipment) -> str:
        container = shipment.container()
        spec = names.digest(container)
        name = f"batch-{job.name}-{spec[:8]}"
        defaults = self._provider.defaults
        environment = {**shipment.environment, names.ENV_SPEC: spec}
        request: dict[str, object] = {
            "ModelName": name,
            "PrimaryContainer": {**container, "Environment": environment},
            "ExecutionRoleArn": defaults.role,
            "Tags": tag_list({**defaults.tags, "modeldeploy:job": job.name}),
            **({"VpcConfig": {key: list(value) for key, value in defaults.vpc.items()}} if defaults.vpc else {}),
        }
        self._provider.put_model(request)
        return name

    # The rows

    def _transform(self, ticket: Ticket, job: Job, work: Work) -> Ticket:
        """Look at what is under way; else read what came back, send what is missing, ask for the next transform job, or publish."""
        seen = work.look()
        answered = work.state.answered()
        part = work.unsent()
        if answered:
            work.receive(answered[0])
            return self._moved(ticket, job, work, f"read part {answered[0] + 1} of {len(work.plan.parts)}")
        if part is not None and not (seen is None and work.full()):
            work.send(part)
            return self._moved(ticket, job, work, f"sent part {part.number + 1} of {len(work.plan.parts)}")
        attempt = work.state.open
        if seen is not None and attempt is not None:
            note = f"transform job {seen.name!r}: {seen.status.value}"
            return self._waiting(ticket, job, work, note, time.time() - attempt.at)
        if work.state.pending():
            attempt = work.try_next()
            work.look()
            return self._waiting(ticket, job, work, f"asked for transform job {attempt.name!r}", 0.0)
        work.publish()
        return self._moved(ticket, job, work, "the output is there")

    def _finish(self, ticket: Ticket, job: Job, work: Work) -> Ticket:
        if not work.state.cleaned:
            work.clean(self._provider.delete_model)
        row = job.ledger().last("done") or {}
        progress = Progress(
            Phase.SUCCEEDED,
            rows_done=row["rows_in"],
            rows_total=row["rows_in"],
            bad_rows=row["bad_rows"],
            fraction=1.0,
            quarantine=str(job.quarantine) if row["bad_rows"] else None,
            note="done",
        )
        job.show(progress)
        return _ended(ticket, progress)

    # Telling

    def _moved(self, ticket: Ticket, job: Job, work: Work, note: str, step: Step | None = None) -> Ticket:
        progress = _show(job, work, note)
        return moved(ticket, step or _step(work), note=asking.describe(progress), fraction=progress.fraction)

    def _waiting(self, ticket: Ticket, job: Job, work: Work, note: str, age: float) -> Ticket:
        progress = _show(job, work, note)
        there = attrs.evolve(ticket, step=str(_step(work)), fraction=progress.fraction)
        return waiting(there, self._pace.poll(age), f"{asking.describe(progress)}; {note}")

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
            return _ended(ticket, progress)
        job.ask_to_stop()
        return moved(attrs.evolve(ticket, step=str(Step(_WORK))), Step(_WORK), note="stopping")

    def _stop(self, ticket: Ticket, job: Job, work: Work) -> Ticket:
        seen = work.look()
        if seen is not None:
            work.stop()
            return waiting(ticket, self._pace.poll(0), f"stopping transform job {seen.name!r}")
        progress = attrs.evolve(_show(job, work, _STOPPED), phase=Phase.CANCELLED)
        job.show(progress)
        return _ended(ticket, progress)

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


def _step(work: Work) -> Step:
    """Give a step that differs after each act, which tells the engine that looking again at once is useful."""
    return Step(_WORK, str(work.acts))


def _show(job: Job, work: Work, note: str) -> Progress:
    """Write down how far a job is: the rows that are durable here, and what was sent of the others."""
    state, parts = work.state, work.plan.parts
    whole = sum(part.size for part in parts) or 1
    done = sum(part.size for part in parts if part.number in state.done)
    sent = sum(part.size for part in parts if part.number in state.sent)
    counted = sum(each.rows_in for each in state.sent.values()) if len(state.sent) == len(parts) else None
    progress = Progress(
        rows_done=sum(each.rows_in for each in state.done.values()),
        rows_total=work.plan.rows if work.plan.rows is not None else counted,
        bad_rows=state.bad_rows(),
        fraction=(_SENDING * sent + (1 - _SENDING) * done) / whole,
        note=note,
    )
    job.show(progress)
    return progress


def _ended(ticket: Ticket, progress: Progress) -> Ticket:
    note = asking.describe(progress) if progress.phase is Phase.SUCCEEDED else progress.note
    fraction = 1.0 if progress.phase is Phase.SUCCEEDED else progress.fraction
    return attrs.evolve(ticket, phase=progress.phase, fraction=fraction, note=note, poll_after=0.0)
