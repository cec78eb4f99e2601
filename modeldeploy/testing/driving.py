"""One operation of the engine on a stage of its own: driven, stopped, taken up again, and spoken to."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.effects import Call, Dialogue, Flow, Save, Sleep
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.owners import forget, new_owner
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.engine.rollback import RollbackCursor, RollbackFlow
from modeldeploy.engine.rollout import Check, RolloutCursor, RolloutFlow
from modeldeploy.engine.single import SingleCursor, SingleFlow
from modeldeploy.errors import OperationCancelled, OperationFailed
from modeldeploy.testing.clock import TickingClock, VirtualClock
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.watched import Watched
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import EndpointSpec

_RETRY = RetryPolicy(first=0.02, cap=0.1)
_DRIVES = 20


class DiedError(BaseException):
    """The driver dies here; not an Exception, so that no flow can notice it."""


@attrs.define
class Life:
    """How long a driver lives: it dies before the effect numbered ``ends`` (from 0) of those that leave a mark.

    To ask for the time, for commands or for outcomes leaves none, and what is told is written with the next save: dying before one of those
    is dying before the next of the others.
    """

    ends: int | None = None
    done: int = 0

    def meet(self, effect: object) -> None:
        """Count an effect, or die before it."""
        if isinstance(effect, Call | Save | Sleep):
            if self.done == self.ends:
                raise DiedError
            self.done += 1


@attrs.define
class Operation:
    """One operation of the engine on the backend under test, driven as often as it takes."""

    kind: Kind
    cursor: Mapping[str, Any]
    target: str
    backend: Any
    clock: TickingClock
    check: Check | None = None
    journal: Journal = attrs.field(factory=Journal)
    id: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        made = Record(f"{self.kind.value}-1", self.kind, self.backend.name, self.target, self.cursor)
        self.id = self.journal.create(made).id

    def drive(self, life: Life) -> bool:
        """Take the operation over from whoever died, as a fresh process would; whether this driver outlived it or its next pause."""
        owner = new_owner()
        record = self.journal.acquire(self.id, owner)
        world = World(record, self.journal, clock=self.clock)
        flow = retrying(self._flow(record), _RETRY, rng=random.Random(0))  # noqa: S311 - repeatable
        try:
            run(_living(flow, life), world)
        except DiedError:
            return False
        except (OperationFailed, OperationCancelled):
            if not self.end().phase.ended:
                raise
        finally:
            # Dead or done, it gives nothing back.
            forget(owner)
        return True

    def end(self) -> Record:
        """Read how it stands in the journal."""
        return self.journal.read(self.id)

    def _flow(self, record: Record) -> Flow[Any]:
        if self.kind is Kind.ROLLOUT:
            return RolloutFlow(self.backend, from_json(RolloutCursor, record.cursor), self.check).run()
        if self.kind is Kind.ROLLBACK:
            return RollbackFlow(self.backend, from_json(RollbackCursor, record.cursor)).run()
        return SingleFlow(self.backend, from_json(SingleCursor, record.cursor)).run()


def _living(flow: Flow[Any], life: Life) -> Flow[Any]:
    """Pass a flow's effects on while the driver lives."""
    dialogue = Dialogue(flow)
    while dialogue.goes_on():
        life.meet(dialogue.effect)
        try:
            dialogue.answer = yield dialogue.effect
        except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
            dialogue.error = raised
    return dialogue.value


@attrs.frozen
class Word:
    """What a user says when the operation waits for one, and what was put right before."""

    verb: Verb
    first: Callable[[Stage], object] = lambda _stage: None


@attrs.define
class Stage:
    """An endpoint, the backend as its operation meets it, and what happens there while time passes."""

    harness: Harness
    spec: EndpointSpec
    watched: Watched
    backend: Any
    """What the engine calls: ``watched``, perhaps with faults before it."""
    words: list[Word] = attrs.field(factory=list)
    busy: bool = True
    """Whether requests arrive."""
    happens: Callable[[Stage], object] = lambda _stage: None
    """Is called at every beat."""
    clock: TickingClock = attrs.field(init=False)
    operation: Operation = attrs.field(init=False)
    began: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        harness = self.harness
        if isinstance(harness.clock, VirtualClock):
            # Every stage begins at a beat, so that two of them can be compared to the request.
            harness.clock.at += harness.beat - harness.clock.at % harness.beat
        self.clock = TickingClock(harness.clock, harness.beat, self._beat)
        self.began = harness.clock.now()

    def begin(self, kind: Kind, cursor: Any, *, check: Check | None = None) -> None:
        """Write the operation into a journal of its own."""
        self.operation = Operation(kind, to_json(cursor), self.spec.name, self.backend, self.clock, check)

    def go_on(self, stop: int | None = None, *, tell: Verb | None = None) -> bool:
        """Drive to the end, with a word of a user at each pause; False when the driver died before its effect ``stop``."""
        life = Life(stop)
        if tell is not None:
            self.operation.journal.tell(self.operation.id, tell, "the suite says so")
        for _drive in range(_DRIVES):
            if not self.operation.drive(life):
                return False
            if self.operation.end().phase.ended:
                return True
            self._speak()
        message = f"{self.operation.kind.value} comes to no end: {self.operation.end().outcome}"
        raise AssertionError(message)

    def _speak(self) -> None:
        waits = self.operation.end()
        assert waits.paused, f"the driver left it alone: {waits.outcome}"
        assert self.words, f"it waits for a user, and nobody speaks: {waits.outcome}"
        word = self.words.pop(0)
        word.first(self)
        self.operation.journal.tell(self.operation.id, word.verb, "the suite says so")

    @property
    def beat(self) -> int:
        """Number of the beat since it began."""
        return round((self.clock.now() - self.began) / self.harness.beat)

    def _beat(self) -> None:
        self.happens(self)
        if self.busy:
            self.harness.ask(self.spec.name, self.beat)
