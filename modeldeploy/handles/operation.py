"""The handle of a long-running operation: status, wait, await, cancel; taken up by its id from any process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Self

from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.errors import (
    ConflictError,
    FencedError,
    ModelDeployError,
    NotFoundError,
    OperationCancelled,
    OperationFailed,
    OperationTimeout,
    RolloutAborted,
    UnsupportedError,
)
from modeldeploy.handles.session import Drive, Session
from modeldeploy.spi import Backend
from modeldeploy.values.codec import from_json
from modeldeploy.values.events import Event
from modeldeploy.values.ticket import Phase

_LOOK_S = 0.2
"""How often the journal is looked at while another process drives."""

_HANDOVER_S = 5.0
_HANDOVER_LOOK_S = 0.01


class Operation:
    """Work that goes on by itself once begun; the journal knows it, so any process can wait for it or take it up."""

    def __init__(self, session: Session, id: str) -> None:  # noqa: A002 - the name users know it by
        self.id = id
        self._session = session

    @classmethod
    def get(cls, id: str, *, backend: str | Backend | Session | None = None, home: Path | str | None = None) -> Self:  # noqa: A002
        """Find an operation by its id; NotFoundError when the journal has none."""
        session = Session.of(backend, home=home)
        record = session.journal.read(id)
        if record.backend != session.backend.name:
            session = Session.of(record.backend, home=home)
        return cls(session, id)

    attach = get

    @classmethod
    def unfinished(
        cls, *, backend: str | Backend | Session | None = None, home: Path | str | None = None
    ) -> tuple[Self, ...]:
        """List what has not ended, oldest first."""
        session = Session.of(backend, home=home)
        return tuple(cls(session, record.id) for record in session.journal.unfinished(backend=session.backend.name))

    @property
    def record(self) -> Record:
        """What the journal holds of it now."""
        return self._session.journal.read(self.id)

    @property
    def kind(self) -> Kind:
        """What it does: rollout, rollback, delete or batch."""
        return self.record.kind

    @property
    def target(self) -> str:
        """The name of the endpoint or job that it works on."""
        return self.record.target

    @property
    def status(self) -> str:
        """``"running"``, ``"paused"``, ``"succeeded"``, ``"failed"`` or ``"cancelled"``."""
        record = self.record
        return "paused" if record.paused else record.phase.value

    @property
    def outcome(self) -> str:
        """Why it ended or waits, in words; empty while it runs."""
        return self.record.outcome

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.record.phase.ended

    @property
    def driver(self) -> str:
        """Who drives it now, in words; empty when nobody does."""
        return self._session.journal.driver(self.id)

    def events(self, *, skip: int = 0) -> tuple[Event, ...]:
        """Give what happened so far, oldest first, without the first ``skip``."""
        return self._session.journal.events(self.id, skip=skip)

    def watch(self) -> Iterator[Event]:
        """Give events as they are journalled, until the operation ended or waits for a user."""
        given = 0
        while True:
            record = self.record
            events = self.events(skip=given)
            yield from events
            given += len(events)
            if record.phase.ended or record.paused:
                return
            time.sleep(_LOOK_S)

    def start(self) -> Self:
        """Drive it in the background of this process, unless somebody does already."""
        if self._session.driving(self.id) is not None and not self.record.paused:
            return self
        self._let_go()
        if not (self.done or self._session.journal.driven(self.id)):
            self._session.drive(self.id)
        return self

    def _let_go(self) -> None:
        """Wait for the driver of a paused operation: it is about to let go, and may not have seen the word to go on."""
        drive = self._session.driving(self.id)
        if drive is not None:
            drive.join(_HANDOVER_S)
        until = time.monotonic() + _HANDOVER_S
        while self.record.paused and self._session.journal.driven(self.id) and time.monotonic() < until:
            time.sleep(_HANDOVER_LOOK_S)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it ended, driving it if nobody does; a paused one is not waited for.

        OperationTimeout after ``timeout`` seconds: the work itself goes on. OperationFailed, RolloutAborted or OperationCancelled
        when it did not succeed.
        """
        from modeldeploy.observe.progress import progress

        if self.at_rest:
            return self.check()
        deadline = None if timeout is None else time.monotonic() + timeout
        with progress(self._title()) as display:

            def show(event: Event) -> None:
                if event.operation == self.id:
                    display.update(event)

            unsubscribe = self._session.subscribe(show)
            try:
                self._wait(deadline, timeout)
            except KeyboardInterrupt as interrupt:
                interrupt.add_note(f"{self.id} goes on; Operation.get({self.id!r}).wait() waits for it again")
                raise
            finally:
                unsubscribe()
        return self.check()

    def _wait(self, deadline: float | None, timeout: float | None) -> None:
        while not self.at_rest:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                message = f"{self.id} is still {self.status} after {timeout:g} s"
                hint = f"it goes on; Operation.get({self.id!r}).wait() waits again"
                raise OperationTimeout(message, hint=hint, context={"operation": self.id})
            self._wait_once(left)

    @property
    def at_rest(self) -> bool:
        """Whether it ended, or is paused and nobody has told it to go on."""
        record = self.record
        if record.phase.ended or not record.paused:
            return record.phase.ended
        return self._session.driving(self.id) is None and not self._called(record)

    def _called(self, record: Record) -> bool:
        """Whether somebody told a paused operation to go on and no driver has heard it yet."""
        commands = self._session.journal.commands(self.id, after=int(record.cursor.get("seen", 0)))
        return any(command.verb is not Verb.PAUSE for command in commands)

    def _wait_once(self, left: float | None) -> None:
        drive = self._session.driving(self.id)
        if drive is None and self._session.journal.driven(self.id):
            time.sleep(_LOOK_S if left is None else min(left, _LOOK_S))
            return
        drive = drive or self._session.drive(self.id)
        if drive.join(left) and drive.error is not None:
            self._raise_or_follow(drive.error)

    def _raise_or_follow(self, error: Exception) -> None:
        """Follow an operation that another driver took over; one that ended tells its end itself."""
        if isinstance(error, FencedError) or self.done:
            return
        if isinstance(error, ConflictError) and self._session.journal.driven(self.id):
            return
        raise error

    def __await__(self) -> Generator[Any, None, Self]:
        return self._await().__await__()

    async def _await(self) -> Self:
        import asyncio

        while not await asyncio.to_thread(lambda: self.at_rest):
            drive = self._session.driving(self.id)
            if drive is not None:
                await _until_done(drive)
                if drive.error is not None:
                    await asyncio.to_thread(self._raise_or_follow, drive.error)
                continue
            if await asyncio.to_thread(self._session.journal.driven, self.id):
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                await self._session.adrive(self.id)
            except ModelDeployError as error:
                await asyncio.to_thread(self._raise_or_follow, error)
        return await asyncio.to_thread(self.check)

    def cancel(self, reason: str = "") -> None:
        """Ask it to stop; UnsupportedError when the backend cannot stop such work. What it began is taken back where that is possible."""
        if self.kind is Kind.ROLLBACK:
            message = f"{self.id} is a rollback, which cannot be stopped half-way"
            raise UnsupportedError(
                message, capability="cancel", hint="endpoint.rollback(to=...) goes to another revision"
            )
        if self.kind is not Kind.ROLLOUT:
            self._session.backend.capabilities.require("cancel", backend=self._session.backend.name)
        self.tell(Verb.CANCEL, reason)
        self.start()

    def tell(self, verb: Verb, reason: str = "") -> None:
        """Leave a command for whoever drives it, and wake the driver when it is in this process."""
        record = self.record
        if record.phase.ended:
            message = f"{self.id} has ended already: {record.phase.value}, {record.outcome}"
            raise ConflictError(message, hint="nothing was changed", context={"operation": self.id})
        self._session.journal.tell(self.id, verb, reason)
        self._session.wake(self.id)

    def check(self) -> Self:
        """Raise what the operation's end calls for; nothing when it succeeded or has not ended."""
        record = self.record
        if record.phase is Phase.CANCELLED:
            message = f"{record.kind.value} of {record.target!r} was cancelled: {record.outcome}"
            raise OperationCancelled(message, context={"operation": self.id})
        if record.phase is Phase.FAILED:
            raise _failure(record)
        return self

    def _title(self) -> str:
        record = self.record
        return f"{record.kind.value} {record.target}"

    def __repr__(self) -> str:
        try:
            record = self.record
        except NotFoundError:
            return f"Operation({self.id!r}, unknown)"
        return f"Operation({self.id!r}, {record.kind.value} of {record.target!r}, {self.status})"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        try:
            record = self.record
        except NotFoundError:
            return notebook.line(notebook.code(self.id), notebook.badge("unknown", "bad"))
        pairs = [
            ("kind", record.kind.value),
            ("target", record.target),
            ("status", self.status),
            ("outcome", record.outcome),
        ]
        return notebook.definition(f"Operation {record.id}", pairs)


async def _until_done(drive: Drive) -> None:
    """Wait for a background thread without holding another one."""
    import asyncio

    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        # The loop may be closed by the time that the thread ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    drive.when_done(tell)
    await done.wait()


def _failure(record: Record) -> ModelDeployError:
    context = {"operation": record.id}
    if record.kind is Kind.ROLLOUT:
        from modeldeploy.engine.rollout import RolloutCursor, Stage

        cursor = from_json(RolloutCursor, record.cursor)
        if cursor.stage is Stage.BACK:
            live = cursor.baseline.live if cursor.baseline else {}
            message = f"{cursor.revision.model} was taken back from {record.target!r}: {record.outcome}"
            hint = f"traffic is {live}; ep.logs(revision={cursor.revision.id!r}) shows what it said"
            verdict = cursor.verdict.value if cursor.verdict else ""
            return RolloutAborted(message, verdict=verdict, traffic=live, hint=hint, context=context)
    return OperationFailed(f"{record.kind.value} of {record.target!r} failed: {record.outcome}", context=context)
