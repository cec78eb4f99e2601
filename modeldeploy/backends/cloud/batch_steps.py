"""The next step of a job: send the model, send a part, look at a run, read what came back, publish, stop.

A backend's own part is how the model comes to the service; it subclasses ``Steps``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import attrs

from modeldeploy.backends.cloud.batch_state import State
from modeldeploy.backends.cloud.batch_work import Work
from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.errors import ModelDeployError, NotFoundError
from modeldeploy.scoring import asking
from modeldeploy.scoring.job import Job, Progress, Request
from modeldeploy.scoring.runner import full
from modeldeploy.scoring.worker import FULL
from modeldeploy.values.ticket import Phase, Ticket

PLACE = "modeldeploy/batch"
WORK = "work"
_SENDING = 0.2
"""Share of the work that sending a part is, in what is shown."""
_STOPPED = "stopped; what is done is kept"


class Pace(Protocol):
    """How long things take at the service."""

    @property
    def grace(self) -> float:
        """How long what was made may not be shown yet."""
        ...

    def poll(self, age: float) -> float:
        """Say when to look again at work of that age."""
        ...


class Steps:
    """A ticket, and what may be done about it now."""

    def __init__(self, pace: Pace, ticket: Ticket, job: Job, asked: Request) -> None:
        self._pace = pace
        self._ticket = ticket
        self._job = job
        self._asked = asked

    # For subclasses

    def _work(self) -> Work:
        raise NotImplementedError

    def _ship(self, work: Work) -> Ticket:
        """Bring the model to the service, one step at a time, and tell ``work`` when it is there."""
        raise NotImplementedError

    def _stop_run(self, state: State) -> None:
        """Ask the run that is under way to stop, if there is one."""
        raise NotImplementedError

    def _delete_model(self, name: str) -> None:
        """Take away what was made of the model."""
        raise NotImplementedError

    def begin(self) -> Ticket:
        """Begin a run."""
        return self._guarded(self._begin)

    def next(self) -> Ticket:
        """Do the next step."""
        return self._guarded(self._next)

    def _guarded(self, act: Callable[[], Ticket]) -> Ticket:
        """Do a step; what cannot be repeated ends the job with its reason, and nothing at the service goes on costing money."""
        try:
            return act()
        except ModelDeployError as error:
            if error.transient:
                raise
            return self._fail(str(error))
        except OSError as error:
            place = str(error.filename or self._job.parts)
            if error.errno in FULL:
                return self._fail(str(full(place, self._job)))
            return self._fail(f"{place!r} cannot be read or written: {error.strerror}")

    def _fail(self, note: str) -> Ticket:
        job = self._job
        quarantine = str(job.quarantine) if job.quarantine.exists() else None
        job.show(attrs.evolve(job.progress(), phase=Phase.FAILED, note=note, quarantine=quarantine))
        # The job's own failure is what must be told.
        with contextlib.suppress(ModelDeployError):
            self._stop_run(State.of(job.entries()))
        return self._ticket.failed(note)

    def _begin(self) -> Ticket:
        self._work().begin()
        return moved(self._ticket, Step(WORK), note="looking at the input", fraction=0.0)

    def _next(self) -> Ticket:
        progress = self._job.progress()
        if progress.phase.ended:
            return ended(self._ticket, progress)
        work = self._work()
        if work.state.published:
            return self._finish(work)
        if self._job.cancelled:
            return self._stop(work)
        work.check_inputs()
        if not work.state.model:
            return self._ship(work)
        try:
            return self._run(work)
        except NotFoundError:
            # A Model that was just made is not seen everywhere at once.
            if time.time() - work.state.model_at > self._pace.grace:
                raise
            return self._waiting(work, "the model is not seen yet", 0.0)

    # The rows

    def _run(self, work: Work) -> Ticket:
        """Look at what is under way; else read what came back, send what is missing, ask for the next run, or publish."""
        seen = work.look()
        answered = work.state.answered()
        part = work.unsent()
        if answered:
            work.receive(answered[0])
            return self._moved(work, f"read part {answered[0] + 1} of {len(work.plan.parts)}")
        if part is not None and not (seen is None and work.full()):
            work.send(part)
            return self._moved(work, f"sent part {part.number + 1} of {len(work.plan.parts)}")
        attempt = work.state.open
        if seen is not None and attempt is not None:
            return self._waiting(work, f"{work.word} {seen.name!r}: {seen.status.value}", time.time() - attempt.at)
        if work.state.pending():
            attempt = work.try_next()
            work.look()
            return self._waiting(work, f"asked for {work.word} {attempt.name!r}", 0.0)
        work.publish()
        return self._moved(work, "the output is there")

    def _finish(self, work: Work) -> Ticket:
        left = "" if work.state.cleaned else self._clean(work)
        row = self._job.ledger().last("done") or {}
        progress = Progress(
            Phase.SUCCEEDED,
            rows_done=row["rows_in"],
            rows_total=row["rows_in"],
            bad_rows=row["bad_rows"],
            fraction=1.0,
            quarantine=str(self._job.quarantine) if row["bad_rows"] else None,
            note=f"done{left}",
        )
        self._job.show(progress)
        there = ended(self._ticket, progress)
        return attrs.evolve(there, note=f"{there.note}{left}")

    def _clean(self, work: Work) -> str:
        """Take away what was made on the way; what cannot be is told, and no reason to fail: the output is there."""
        try:
            work.clean(self._delete_model)
        except ModelDeployError as error:
            if error.transient:
                raise
            return f"; left in the bucket: {error}"
        return ""

    def _stop(self, work: Work) -> Ticket:
        seen = work.look()
        if seen is not None:
            self._stop_run(work.state)
            return waiting(self._ticket, self._pace.poll(0), f"stopping {work.word} {seen.name!r}")
        progress = attrs.evolve(self._show(work, _STOPPED), phase=Phase.CANCELLED)
        self._job.show(progress)
        return ended(self._ticket, progress)

    # Telling

    def _moved(self, work: Work, note: str, step: Step | None = None) -> Ticket:
        progress = self._show(work, note)
        return moved(self._ticket, step or _step(work), note=asking.describe(progress), fraction=progress.fraction)

    def _waiting(self, work: Work, note: str, age: float) -> Ticket:
        progress = self._show(work, note)
        there = attrs.evolve(self._ticket, step=str(_step(work)), fraction=progress.fraction)
        return waiting(there, self._pace.poll(age), f"{asking.describe(progress)}; {note}")

    def _show(self, work: Work, note: str) -> Progress:
        """Write down how far the job is: the rows that are durable here, and what was sent of the others."""
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
        self._job.show(progress)
        return progress


def _step(work: Work) -> Step:
    """Give a step that differs after each act, which tells the engine that looking again at once is useful."""
    return Step(WORK, str(work.acts))


def ended(ticket: Ticket, progress: Progress) -> Ticket:
    """Give a ticket that ended as its job did."""
    note = asking.describe(progress) if progress.phase is Phase.SUCCEEDED else progress.note
    fraction = 1.0 if progress.phase is Phase.SUCCEEDED else progress.fraction
    return attrs.evolve(ticket, phase=progress.phase, fraction=fraction, note=note, poll_after=0.0)
