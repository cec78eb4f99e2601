"""Batch jobs on a cloud: the table stays here, its rows go as lines through the cloud's store to its machines, and the answers come back.

A job is planned, checked, joined and published by ``modeldeploy.scoring``, as on this machine; the service only predicts. Where the job
stands is in its directory here (``HOME/BACKEND/batch/NAME``) and in the store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import attrs

from modeldeploy.backends.cloud.batch_steps import WORK, Pace, Steps, ended
from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.errors import ConflictError, UnsupportedError
from modeldeploy.packaging.store import Store
from modeldeploy.scoring import asking, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Progress, Request
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.names import check_name
from modeldeploy.values.ticket import Action, Phase, Ticket


class RemoteBatch:
    """The batch family of a cloud's backend; a subclass says how a job's steps are done there."""

    def __init__(self, folder: Path, *, store: Path, pace: Pace, trust: Collection[str] = ()) -> None:
        self._folder = folder
        self._store = store
        self._pace = pace
        self._trust = tuple(trust)

    # For subclasses

    def _check(self, job: BatchSpec) -> None:
        """Refuse a job that cannot be done there, without asking the service."""
        raise NotImplementedError

    def _steps(self, ticket: Ticket, job: Job, asked: Request) -> Steps:
        raise NotImplementedError

    def _forget(self, job: Job) -> None:
        """Take away what an earlier job of this name left, here and there."""
        raise NotImplementedError

    # Asking

    def put_job(self, job: BatchSpec) -> Ticket:
        """Check everything that can be checked without reading the input through or asking the service; nothing is written."""
        request = self._request(job)
        planning.inspect(job)
        asking.check_output(job)
        self._check(job)
        asking.begins_anew(self._job(job.name), request)
        return Ticket(Action.PUT_JOB, job.name, {"job": to_json(job)})

    def _job(self, name: str) -> Job:
        return Job(self._folder / check_name(name, "job name"))

    def _request(self, spec: BatchSpec) -> Request:
        return asking.request(spec, {*self._trust, *Store(self._store).trusted()})

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
            return self._steps(ticket, job, job.request()).next()
        finally:
            lease.release()

    def _begin(self, ticket: Ticket, job: Job, asked: Request) -> Ticket:
        """Begin a run, unless the job is done, or was begun by this very ticket or by a driver that died."""
        known, progress = job.exists(), job.progress()
        anew = asking.begins_anew(job, asked, ours=True)
        if known and not anew and publish.finished(job) and progress.phase is Phase.SUCCEEDED:
            return ended(ticket, progress)
        if known and anew:
            self._forget(job)
        job.put(asked)
        if known and not anew and progress.phase is Phase.RUNNING and not job.cancelled:
            return moved(ticket, Step(WORK), note=progress.note)
        job.allow()
        job.show(Progress(note="looking at the input"))
        return self._steps(ticket, job, asked).begin()

    # Stopping

    def cancel(self, ticket: Ticket) -> Ticket:
        """Let the job stop: the run that is under way is stopped; what came back before is kept, and the same job goes on from there."""
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
        found = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        return [name for name in found if self._job(name).exists()]
