"""What a flow may ask its driver for.

A flow is a generator: it *asks* (yields an effect) and is told the answer (or the error). It never sleeps, calls a provider, reads a clock
or writes by itself, so one copy of the logic runs in a thread, on an event loop and in virtual time, and can be stopped before any effect.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, cast

import attrs

from modeldeploy.engine.record import Command, HistoryEntry
from modeldeploy.values.events import Level, Name
from modeldeploy.values.ticket import Phase

T = TypeVar("T")


@attrs.frozen
class Call(Generic[T]):
    """Do something at the provider; ``what`` names it in logs. Repeated on transient errors, so it must be safe to repeat."""

    fn: Callable[[], T]
    what: str
    patient: bool = True
    """Whether transient errors are waited out here; if not, the flow sees the first one."""


@attrs.frozen
class Sleep:
    """Wait; the driver may wake up early when a command arrives."""

    seconds: float


@attrs.frozen
class Now:
    """Ask for the time in seconds since the epoch."""


@attrs.frozen
class Emit:
    """Tell what happened."""

    name: Name
    fields: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    level: Level = Level.INFO


@attrs.frozen
class Save:
    """Make the cursor durable before the next act; ``history`` goes into the same transaction.

    FencedError when somebody else took the operation over: the flow must end at once.
    """

    cursor: Mapping[str, Any]
    phase: Phase = Phase.RUNNING
    outcome: str = ""
    history: HistoryEntry | None = None


@attrs.frozen
class Inbox:
    """Ask for the commands that users gave after the one numbered ``seen``, oldest first."""

    seen: int


@attrs.frozen
class Outcomes:
    """Ask for what users reported of each revision's answers: ``{revision: Tally}``."""


Effect: TypeAlias = Call[Any] | Sleep | Now | Emit | Save | Inbox | Outcomes
Flow: TypeAlias = Generator[Effect, Any, T]


@attrs.define
class Dialogue(Generic[T]):
    """A flow being answered: while ``goes_on()``, perform ``effect`` and set ``answer`` or ``error``; ``value`` is its end."""

    flow: Flow[T]
    effect: Effect = attrs.field(init=False)
    answer: Any = None
    error: Exception | None = None
    value: T = attrs.field(init=False)

    def goes_on(self) -> bool:
        """Tell the flow what came of its effect and let it ask for the next; False when it has ended."""
        answer, error = self.answer, self.error
        self.answer = self.error = None
        try:
            self.effect = self.flow.send(answer) if error is None else self.flow.throw(error)
        except StopIteration as stop:
            self.value = stop.value
            return False
        return True


def call(what: str, fn: Callable[[], T]) -> Flow[T]:
    """Ask for a call and give its answer, typed."""
    return cast("T", (yield Call(fn, what)))


def attempt(what: str, fn: Callable[[], T]) -> Flow[T]:
    """Ask for a call that is made once: its first error is the answer."""
    return cast("T", (yield Call(fn, what, patient=False)))


def now() -> Flow[float]:
    """Ask for the time."""
    return cast("float", (yield Now()))


def inbox(seen: int) -> Flow[tuple[Command, ...]]:
    """Ask for new commands."""
    return cast("tuple[Command, ...]", (yield Inbox(seen)))
