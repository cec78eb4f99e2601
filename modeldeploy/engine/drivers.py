"""Performing flows: in this thread, on an event loop, in virtual time.

All drivers share ``World``, which performs one effect; they differ only in how they wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import attrs

from modeldeploy.engine.effects import Call, Dialogue, Effect, Emit, Flow, Inbox, Now, Outcomes, Save, Sleep
from modeldeploy.engine.journal import LEASE_S, Journal
from modeldeploy.engine.record import Command, Record
from modeldeploy.values.events import Event

T = TypeVar("T")
Sink = Callable[[Event], None]


class Clock(Protocol):
    """Time, and a way to let it pass."""

    def now(self) -> float:
        """Give the seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""
        ...


@attrs.frozen
class RealClock:
    """The time of this machine; ``wake`` ends a sleep early."""

    wake: threading.Event = attrs.field(factory=threading.Event)

    def now(self) -> float:
        """Give the seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep, or until somebody sets ``wake``."""
        if self.wake.wait(seconds):
            self.wake.clear()


@attrs.define
class VirtualClock:
    """Time that passes only when asked to: an hour-long canary takes milliseconds."""

    at: float = 1_000_000_000.0
    slept: float = 0.0

    def now(self) -> float:
        """Give the virtual seconds since the epoch."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.at += seconds
        self.slept += seconds


class World:
    """Performs effects for one operation: provider calls, the journal, events and the clock.

    Events reach the sinks at once and the journal with the next write, in its transaction.
    """

    def __init__(
        self, record: Record, journal: Journal, *, sink: Sink | None = None, clock: Clock | None = None
    ) -> None:
        self.record = record
        self.journal = journal
        self.clock = clock or RealClock()
        self._sink = sink
        self._unsaved: list[Event] = []
        self._renewed = self.clock.now()

    def perform(self, effect: Effect) -> Any:  # noqa: PLR0911 - one return for each kind of effect
        """Do what the flow asks for and give the answer."""
        match effect:
            case Call(fn=fn):
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

    def renew(self) -> None:
        """Keep the lease when half of it is over."""
        if self.clock.now() - self._renewed > LEASE_S / 2:
            self.journal.renew(self.record)
            self._renewed = self.clock.now()

    def finish(self) -> None:
        """Give the operation back, with the events that were not written yet."""
        # The write that ended it has given it back already.
        if self._unsaved or not self.record.phase.ended:
            self.journal.release(self.record, events=self._take_events())

    def _sleep(self, seconds: float) -> None:
        self.renew()
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
        self.record = self.journal.save(
            changed, events=self._take_events(), history=effect.history, keep=not effect.phase.ended
        )
        self._renewed = self.clock.now()

    def _take_events(self) -> list[Event]:
        events, self._unsaved = self._unsaved, []
        return events

    def _inbox(self, effect: Inbox) -> tuple[Command, ...]:
        return self.journal.commands(self.record.id, after=effect.seen)


def run(flow: Flow[T], world: World) -> T:
    """Drive a flow to its end in this thread."""
    dialogue = Dialogue(flow)
    while dialogue.goes_on():
        try:
            dialogue.answer = world.perform(dialogue.effect)
        except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
            dialogue.error = raised
    return dialogue.value


async def arun(flow: Flow[T], world: World) -> T:
    """Drive a flow to its end on the running event loop; no thread is held while it waits."""
    dialogue = Dialogue(flow)
    while dialogue.goes_on():
        try:
            dialogue.answer = await _aperform(world, dialogue.effect)
        except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
            dialogue.error = raised
    return dialogue.value


async def _aperform(world: World, effect: Effect) -> Any:
    import asyncio

    if not isinstance(effect, Sleep):
        return await _whole(world, effect)
    await asyncio.to_thread(world.renew)
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
