"""Scoring tables on this machine: a runner process of its own for each job, which goes on when the notebook ends.

The runner is found by the lease that it holds, never by its pid, and dies with nobody: it ends when the job does. One that was killed is
started again by whoever looks next, and goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Self

import attrs

from modeldeploy.backends.local import runners
from modeldeploy.errors import ConfigurationError, ConflictError, NotFoundError, UnsupportedError
from modeldeploy.packaging.store import Store
from modeldeploy.scoring import asking, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Progress, Request
from modeldeploy.spi import Identity
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.names import check_name
from modeldeploy.values.ticket import Action, Phase, Ticket

_READS = "pyarrow.parquet"
"""What looks at tables, and takes long to import."""
_LOOK_S = 0.1
_LAST_LOOK_S = 0.01
"""The end is looked for more often the nearer it is."""
_STARTS = 3
"""Runners that may die one after another without a part done before the job fails."""
_TAIL = 2_000


class LocalBatch:
    """The batch family of the local backend; works by itself too."""

    name = "local"
    capabilities = Capabilities(batch=True, cancel=True)

    def __init__(self, home: Path, *, trust: Collection[str] = ()) -> None:
        self._home = home
        self._trust = tuple(trust)
        self._early: dict[str, runners.Early] = {}

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one; it has no settings."""
        if settings:
            message = f"setting {min(settings)!r} of batch jobs on this machine is not known"
            raise ConfigurationError(message, hint="there are none")
        return cls(home)

    def check(self) -> Identity:
        """Say whose jobs these are."""
        import getpass

        return Identity(self.name, getpass.getuser(), str(self._home))

    def close(self) -> None:
        """Runners go on, but for those whose job was never begun."""
        for name in list(self._early):
            self._dismiss(name)

    # Asking

    def put_job(self, job: BatchSpec) -> Ticket:
        """Check everything that can be checked without reading the input through; nothing is written."""
        request = self._request(job)
        asking.check_output(job)
        self._dismiss(job.name)
        early = runners.Early.told(request) if asking.begins_anew(self._job(job.name), request) else None
        if early is not None:
            self._early[job.name] = early
        try:
            # What the runner reads anyway is not imported here as well; what is wrong is told by whoever finds it here.
            if early is None or _READS in sys.modules or not early.agrees():
                planning.inspect(job)
        except BaseException:
            self._dismiss(job.name)
            raise
        return Ticket(Action.PUT_JOB, job.name, {"job": to_json(job)}, poll_after=_LOOK_S)

    def _dismiss(self, name: str) -> None:
        early = self._early.pop(name, None)
        if early is not None:
            early.dismiss()

    def _job(self, name: str) -> Job:
        return Job(self._home / "batch" / check_name(name, "job name"))

    def _request(self, spec: BatchSpec) -> Request:
        return asking.request(spec, {*self._trust, *Store(self._home / "store").trusted()})

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Start a runner if none is at work, and say how far it is."""
        if ticket.phase.ended:
            return ticket
        job = self._job(ticket.target)
        if ticket.step == "start":
            try:
                return self._begin(ticket, job)
            finally:
                self._dismiss(job.name)
        running = Lease.held(job.lease)
        progress = job.progress()
        if running and not progress.phase.ended:
            return _report(ticket, progress)
        if progress.phase.ended:
            return _ended(ticket, progress)
        return self._revive(ticket, job, progress)

    def _begin(self, ticket: Ticket, job: Job) -> Ticket:
        request = self._request(from_json(BatchSpec, ticket.wanted["job"]))
        anew = asking.begins_anew(job, request)
        progress = job.progress()
        if not anew and publish.finished(job) and progress.phase is Phase.SUCCEEDED:
            return _ended(ticket, progress)
        job.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lease = Lease.take(job.lease)
        except ConflictError:
            if progress.phase.ended or not job.exists():
                # Somebody only looks, or has not begun yet.
                return attrs.evolve(ticket, note="waiting for the job's lease")
            return attrs.evolve(ticket, step=_step(0, 0), note="another process runs it")
        if anew and job.exists():
            job.forget()
        job.put(request)
        job.allow()
        job.show(Progress(note="starting"))
        runners.spawn(job, lease, self._early.pop(job.name, None))
        return attrs.evolve(ticket, step=_step(1, 0), fraction=0.0, note="starting")

    def _revive(self, ticket: Ticket, job: Job, progress: Progress) -> Ticket:
        """Start a runner again that was killed; not for ever."""
        if job.cancelled:
            return attrs.evolve(ticket, phase=Phase.CANCELLED, note="stopped; what is done is kept")
        starts, rows = _read_step(ticket.step)
        starts = 0 if progress.rows_done > rows else starts
        if starts >= _STARTS:
            note = f"its process died {starts} times and said: {_tail(job.log)}"
            job.show(attrs.evolve(progress, phase=Phase.FAILED, note=note))
            return attrs.evolve(ticket, phase=Phase.FAILED, note=note)
        try:
            runners.spawn(job, Lease.take(job.lease))
        except ConflictError:
            return _report(ticket, progress)
        return attrs.evolve(
            ticket, step=_step(starts + 1, progress.rows_done), note="its process died and was started again"
        )

    def cancel(self, ticket: Ticket) -> Ticket:
        """Let the runner stop after the parts in hand, or at once when it is asked again; the same job goes on from there."""
        if ticket.action is not Action.PUT_JOB:
            message = f"{ticket.action.value} is no batch job"
            raise UnsupportedError(message, capability="cancel")
        job = self._job(ticket.target)
        if ticket.phase.ended or not job.exists():
            return ticket if ticket.phase.ended else attrs.evolve(ticket, phase=Phase.CANCELLED, note="never begun")
        insist = job.cancelled
        job.ask_to_stop()
        if job.at_work():
            # Asked twice, it stops at once: a model may hang.
            runners.terminate(job) if insist else None
            return attrs.evolve(ticket, note="stopping" if insist else "stopping after the parts in hand")
        progress = job.progress()
        if not progress.phase.ended:
            job.show(attrs.evolve(progress, phase=Phase.CANCELLED, note="stopped; what is done is kept"))
        return _ended(ticket, job.progress())

    # Looking

    def observe_job(self, name: str) -> BatchState | None:
        """Read the job as it is now."""
        job = self._job(name)
        if not job.exists():
            return None
        progress = job.progress()
        died = progress.phase is Phase.RUNNING and not Lease.held(job.lease)
        return BatchState(
            name=name,
            phase=progress.phase,
            output=job.request().spec.output,
            rows_done=progress.rows_done,
            rows_total=progress.rows_total,
            bad_rows=progress.bad_rows,
            rows_per_second=progress.rows_per_second,
            seconds_left=progress.seconds_left,
            quarantine=progress.quarantine,
            note=f"{progress.note}; no process is at work" if died else progress.note,
        )

    def jobs(self) -> Iterable[str]:
        """Name every job."""
        folder = self._home / "batch"
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return [name for name in found if self._job(name).exists()]

    def log(self, name: str) -> Path:
        """Where a job's processes, and the model's own prints, write."""
        job = self._job(name)
        if not job.exists():
            message = f"there is no batch job {name!r}"
            raise NotFoundError(message, hint=f"jobs are {list(self.jobs())}")
        return job.log


def _step(starts: int, rows: int) -> str:
    return f"run {starts} {rows}"


def _read_step(step: str) -> tuple[int, int]:
    _run, starts, rows = step.split(" ")
    return int(starts), int(rows)


def _report(ticket: Ticket, progress: Progress) -> Ticket:
    left = _LOOK_S if progress.seconds_left is None else progress.seconds_left / 10
    look = min(max(left, _LAST_LOOK_S), _LOOK_S)
    return attrs.evolve(ticket, fraction=progress.fraction, note=asking.describe(progress), poll_after=look)


def _ended(ticket: Ticket, progress: Progress) -> Ticket:
    note = asking.describe(progress) if progress.phase is Phase.SUCCEEDED else progress.note
    fraction = 1.0 if progress.phase is Phase.SUCCEEDED else progress.fraction
    return attrs.evolve(ticket, phase=progress.phase, fraction=fraction, note=note)


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip() or "nothing"
    except FileNotFoundError:
        return "nothing"
