"""Performing flows: in this thread, on an event loop, in virtual time.

All drivers share ``World``, which performs one effect; they differ only in how they wait.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import attrs

from modeldeploy.engine.effects import Call, Dialogue, Effect, Emit, Flow, Inbox, Now, Outcomes, Save, Sleep
from modeldeploy.engine.heartbeat import Heartbeat
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.owners import forget
from modeldeploy.engine.record import Command, Record
from modeldeploy.errors import FencedError, ModelDeployError, QuotaError
from modeldeploy.values.events import Event

T = TypeVar("T")
Sink = Callable[[Event], None]

_RENEWED_AFTER = 1 / 3
"""The part of a lease after which it is renewed."""


class Clock(Protocol):
    """Time, and a way to let it pass."""

    def now(self) -> float:
        """Give the seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""
        ...


class Wake(threading.Event):
    """Ends a sleep early, of a thread or of a task on an event loop. One sleeper at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.ring: Callable[[], object] | None = None

    def set(self) -> None:
        """Wake the sleeper, or the next one."""
        super().set()
        ring = self.ring
        if ring is not None:
            ring()


@attrs.frozen
class RealClock:
    """The time of this machine; ``wake`` ends a sleep early."""

    wake: Wake = attrs.field(factory=Wake)

    def now(self) -> float:
        """Give the seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep, or until somebody sets ``wake``."""
        if self.wake.wait(seconds):
            self.wake.clear()

    async def asleep(self, seconds: float) -> None:
        """Sleep likewise without holding a thread."""
        import asyncio

        loop, rung = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            # The loop may be closed by the time that somebody speaks up.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(rung.set)

        self.wake.ring = ring
        try:
            # Set before there was anybody to ring for?
            if not self.wake.is_set():
                await asyncio.wait_for(rung.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self.wake.ring = None
        self.wake.clear()


class World:
    """Performs effects for one operation: provider calls, the journal, events and the clock.

    Events reach the sinks at once and the journal with the next write, in its transaction. ``owner`` is who took the operation.
    A journal in ``trouble`` (a full disk, a file that another process holds) ends the drive where it is, as a crash would: a flow that went on
    could not write down what it decides. Whoever takes the operation up goes on from its last write.
    """

    def __init__(
        self,
        record: Record,
        journal: Journal,
        *,
        owner: str = "",
        sink: Sink | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.record = record
        self.journal = journal
        self.clock = clock or RealClock()
        self.trouble: Exception | None = None
        self._owner = owner
        self._sink = sink
        # A heartbeat must not take the write of its own driver for somebody else's.
        self._writing = threading.Lock()
        self._heartbeat: Heartbeat | None = None
        self._unsaved: list[Event] = []
        self._renewed = self.clock.now()

    def perform(self, effect: Effect) -> Any:  # noqa: PLR0911 - one return for each kind of effect
        """Do what the flow asks for and give the answer."""
        match effect:
            case Call(fn=fn):
                self.hold()
                return fn()
            case Sleep(seconds=seconds):
                return self._sleep(seconds)
            case Now():
                return self.clock.now()
            case Emit():
                return self._emit(effect)
            case Save():
                return self._save(effect)
            case Outcomes():
                return self.journal.outcomes(self.record.id)
            case Inbox():
                return self._inbox(effect)

    def keep_alive(self) -> None:
        """Renew the lease by a thread from now on, so that no call takes too long; until ``finish``."""
        self._heartbeat = Heartbeat(self.renew, self.journal.lease * _RENEWED_AFTER).start()

    def hold(self) -> None:
        """Make sure that the operation is still ours before acting: FencedError when somebody else took it."""
        with self._journalling():
            if self.clock.now() - self._renewed > self.journal.lease * _RENEWED_AFTER:
                self.renew()
            else:
                self.journal.check(self.record)

    def renew(self) -> None:
        """Prolong the lease; FencedError when somebody else took the operation."""
        with self._writing:
            self.journal.renew(self.record)
            self._renewed = self.clock.now()

    def finish(self) -> None:
        """Give the operation back, with the events that were not written yet; this process may take it up again in any case."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        try:
            # The write that ended it has given it back already.
            if self._unsaved or not self.record.phase.ended:
                self._give_back()
        finally:
            forget(self._owner)

    def _give_back(self) -> None:
        try:
            self.journal.release(self.record, events=self._take_events())
        except QuotaError:
            # On a full disk the little that gives it back may find room where the events did not.
            self.journal.release(self.record)
            raise

    def _sleep(self, seconds: float) -> None:
        self.hold()
        self.clock.sleep(seconds)

    def _emit(self, effect: Emit) -> None:
        event = Event(effect.name, self.clock.now(), self.record.id, effect.level, self._fields(effect.fields))
        self._unsaved.append(event)
        if self._sink is not None:
            self._sink(event)

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": self.record.kind.value, "backend": self.record.backend, "target": self.record.target, **fields}

    def _save(self, effect: Save) -> None:
        changed = attrs.evolve(self.record, cursor=effect.cursor, phase=effect.phase, outcome=effect.outcome)
        with self._journalling(), self._writing:
            self.record = self.journal.save(
                changed, events=self._take_events(), history=effect.history, keep=not effect.phase.ended
            )
            self._renewed = self.clock.now()

    def _take_events(self) -> list[Event]:
        events, self._unsaved = self._unsaved, []
        return events

    def _inbox(self, effect: Inbox) -> tuple[Command, ...]:
        with self._journalling():
            return self.journal.commands(self.record.id, after=effect.seen)

    @contextlib.contextmanager
    def _journalling(self) -> Iterator[None]:
        try:
            yield
        except FencedError:
            raise
        except (ModelDeployError, sqlite3.Error) as error:
            self.trouble = error
            raise


def run(flow: Flow[T], world: World) -> T:
    """Drive a flow to its end in this thread."""
    dialogue = Dialogue(flow)
    while dialogue.goes_on():
        try:
            dialogue.answer = world.perform(dialogue.effect)
        except Exception as raised:
            if raised is world.trouble:
                flow.close()
                raise
            dialogue.error = raised
    return dialogue.value


async def arun(flow: Flow[T], world: World) -> T:
    """Drive a flow to its end on the running event loop; no thread is held while it waits."""
    dialogue = Dialogue(flow)
    while dialogue.goes_on():
        try:
            dialogue.answer = await _aperform(world, dialogue.effect)
        except Exception as raised:
            if raised is world.trouble:
                flow.close()
                raise
            dialogue.error = raised
    return dialogue.value


async def _aperform(world: World, effect: Effect) -> Any:
    import asyncio

    if not isinstance(effect, Sleep):
        return await _whole(world, effect)
    await asyncio.to_thread(world.hold)
    if isinstance(world.clock, RealClock):
        return await world.clock.asleep(effect.seconds)
    return await asyncio.sleep(effect.seconds)


async def _whole(world: World, effect: Effect) -> Any:
    """Perform an effect in a thread; when the task is cancelled meanwhile, only after the effect was performed.

    The thread cannot be stopped, and whoever gives the operation back must know what it wrote.
    """
    import asyncio

    act = asyncio.ensure_future(asyncio.to_thread(world.perform, effect))
    try:
        return await asyncio.shield(act)
    except asyncio.CancelledError:
        await asyncio.wait([act])
        # Looked at, so that nobody warns of an error that nobody heard.
        act.exception()
        raise
