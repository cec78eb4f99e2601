"""Scoring tables on this machine: a runner process of its own for each job, which goes on when the notebook ends.

The runner is found by the lease that it holds, never by its pid, and dies with nobody: it ends when the job does. One that was killed is
started again by whoever looks next, and goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Self

import attrs

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError, NotFoundError, UnsupportedError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.store import Store
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring import publish
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Progress, Request, content
from modeldeploy.spi import Identity
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.names import check_name
from modeldeploy.values.ticket import Action, Phase, Ticket

_LOOK_S = 0.1
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
        """Runners go on."""

    # Asking

    def put_job(self, job: BatchSpec) -> Ticket:
        """Check everything that can be checked without reading the input through; nothing is written."""
        request = self._request(job)
        planning.inspect(job)
        _check_output(job)
        _begins_anew(self._job(job.name), request)
        return Ticket(Action.PUT_JOB, job.name, {"job": to_json(job)}, poll_after=_LOOK_S)

    def _job(self, name: str) -> Job:
        return Job(self._home / "batch" / check_name(name, "job name"))

    def _request(self, spec: BatchSpec) -> Request:
        """Check that the model is there and may be loaded."""
        bundle = Bundle.open(Path(spec.model.uri), expect=spec.model.digest)
        trusted = {*self._trust, *Store(self._home / "store").trusted()}
        if bundle.manifest.pickled and bundle.digest not in trusted:
            message = f"{spec.model} holds pickled code and nobody here vouched for {bundle.digest}"
            raise IntegrityError(
                message, hint=f"if you know where it comes from, pass trust={bundle.digest!r} to Model.from_path"
            )
        trust = (bundle.digest,) if bundle.digest in trusted else ()
        return Request(spec, trust, overwrite=spec.options.get("overwrite") == "true")

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Start a runner if none is at work, and say how far it is."""
        if ticket.phase.ended:
            return ticket
        job = self._job(ticket.target)
        if ticket.step == "start":
            return self._begin(ticket, job)
        running = Lease.held(job.lease)
        progress = job.progress()
        if running and not progress.phase.ended:
            return _report(ticket, progress)
        if progress.phase.ended:
            return _ended(ticket, progress)
        return self._revive(ticket, job, progress)

    def _begin(self, ticket: Ticket, job: Job) -> Ticket:
        request = self._request(from_json(BatchSpec, ticket.wanted["job"]))
        anew = _begins_anew(job, request)
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
        _spawn(job, lease)
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
            _spawn(job, Lease.take(job.lease))
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
        if Lease.held(job.lease):
            # Asked twice, it stops at once: a model may hang.
            _terminate(job) if insist else None
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


_ELSEWHERE = "write to another directory, or name the input files more narrowly"


def _check_output(spec: BatchSpec) -> None:
    output = Path(spec.output)
    if not output.parent.is_dir():
        message = f"the output's directory {str(output.parent)!r} does not exist"
        raise ConfigurationError(message, hint="make it first")
    if str(output) in spec.source:
        message = f"output {spec.output!r} is one of the input files"
        raise ConfigurationError(message, hint=_ELSEWHERE)
    inside = next((file for file in spec.source if output.resolve() in Path(file).resolve().parents), None)
    if inside is not None:
        message = f"output directory {spec.output!r} would be replaced, and input file {inside!r} lies in it"
        raise ConfigurationError(message, hint=_ELSEWHERE)


def _begins_anew(job: Job, request: Request) -> bool:
    """Whether nothing of an earlier run is of use; ConflictError when something would be lost without ``overwrite``."""
    known = job.exists()
    if known and content(job.request().spec) != content(request.spec):
        return _replaces(job, request)
    publish.check_free(job, request)
    if not known:
        return True
    output = Path(request.spec.output)
    if publish.finished(job) and not (output.exists() and publish.is_ours(job, output)):
        return True
    try:
        job.check_inputs()
    except ConflictError:
        if not request.overwrite:
            raise
        return True
    return False


def _replaces(job: Job, request: Request) -> bool:
    if request.overwrite and not Lease.held(job.lease):
        return True
    message = f"batch job {job.name!r} exists with other content"
    raise ConflictError(message, hint="choose another name=, or replace it with overwrite=True once it has ended")


def _spawn(job: Job, lease: Lease) -> None:
    """Start a runner that holds the lease from its first moment, in a session of its own."""
    inherits = os.name != "nt"
    command = [sys.executable, "-m", "modeldeploy.scoring", str(job.home)]
    try:
        with job.log.open("ab") as log:
            process = (
                _start([*command, str(lease.handle)], log, lease.handle) if inherits else _start(command, log, None)
            )
    finally:
        lease.release()
    # Somebody must take note of its end, or it stays a zombie as long as this process lives.
    threading.Thread(target=process.wait, name=f"batch job {job.name}", daemon=True).start()


def _start(command: list[str], log: IO[bytes], handle: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=() if handle is None else (handle,),
        start_new_session=True,
    )


def _terminate(job: Job) -> None:
    runner = Lease.holder(job.lease)
    if runner is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(runner, signal.SIGTERM)


def _step(starts: int, rows: int) -> str:
    return f"run {starts} {rows}"


def _read_step(step: str) -> tuple[int, int]:
    _run, starts, rows = step.split(" ")
    return int(starts), int(rows)


def _report(ticket: Ticket, progress: Progress) -> Ticket:
    return attrs.evolve(ticket, fraction=progress.fraction, note=describe(progress))


def _ended(ticket: Ticket, progress: Progress) -> Ticket:
    note = describe(progress) if progress.phase is Phase.SUCCEEDED else progress.note
    fraction = 1.0 if progress.phase is Phase.SUCCEEDED else progress.fraction
    return attrs.evolve(ticket, phase=progress.phase, fraction=fraction, note=note)


def describe(progress: Progress) -> str:
    """Say how far a job is: rows, bad rows, rows per second and time left."""
    total = f" of {progress.rows_total:,}" if progress.rows_total is not None else ""
    parts = [f"{progress.rows_done:,}{total} rows"]
    if progress.bad_rows:
        parts.append(f"{progress.bad_rows:,} bad")
    if progress.rows_per_second:
        parts.append(f"{progress.rows_per_second:,.0f} rows/s")
    if progress.seconds_left and not progress.phase.ended:
        parts.append(f"{progress.seconds_left:,.0f} s left")
    return ", ".join(parts) if progress.rows_done else progress.note


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip() or "nothing"
    except FileNotFoundError:
        return "nothing"
