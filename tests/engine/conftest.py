"""A provider in memory, virtual time, a journal, and users who speak up at chosen moments."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.effects import Call, Dialogue, Effect, Emit, Flow, Save
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.engine.rollback import RollbackCursor, RollbackFlow
from modeldeploy.engine.rollout import RolloutCursor, RolloutFlow
from modeldeploy.engine.single import SingleCursor, SingleFlow
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.events import Event
from modeldeploy.values.metrics import Window, bucket_of
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, Traffic

SPEC = EndpointSpec("iris")
EVENTS = Path(__file__).resolve().parents[2] / "docs" / "events.md"
# What users are told that an event holds, by its name.
EVENT_FIELDS = {
    name: set(re.findall(r"`(\w+)`", fields))
    for name, fields in re.findall(
        r"^\| `(\w+\.\w+)` \|[^|]*\|([^|]*)\|", EVENTS.read_text(encoding="utf-8"), re.MULTILINE
    )
}
COMMON_FIELDS = {"kind", "backend", "target"}


def make_revision(version: str) -> Revision:
    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("iris", version, digest, f"memory:{version}", "function", signature))


@pytest.fixture(scope="session")
def revision():
    """Give ``revision("1.0.0")``."""
    return make_revision


class Scene:
    """One endpoint in memory, its journal, and a clock that requests flow by: a hundred a second, by the table."""

    def __init__(self, *, steps: int = 2, path: Path | None = None, **options: Any) -> None:
        self.clock = FlowingClock()
        self.clock.flow = self.flow
        self.backend = MemoryBackend(clock=self.clock.now, steps=steps, **options)
        self.journal = Journal(path, clock=self.clock.now)
        self.sick: dict[str, float] = {}
        self.slow: dict[str, float] = {}
        self.differs: dict[str, float] = {}
        self.rate = 100
        self.rest: dict[str, float] = {}
        self.emitted: list[Event] = []
        self.number = 0
        self.meet: Callable[[Effect], None] = lambda effect: None
        self.at: list[tuple[float, Callable[[], object]]] = []

    # Traffic

    def flow(self, seconds: float) -> None:
        """Let requests arrive for a while; ``sick`` revisions fail that share of them, ``slow`` ones take so long."""
        for name in self.backend.endpoints():
            for revision, share in self.state.traffic.live.items():
                requests = self.whole(revision, self.rate * share / 100 * seconds)
                errors = self.whole(f"{revision} fails", requests * self.sick.get(revision, 0.0))
                latency = self.slow.get(revision, 0.001)
                self.backend.record(name, revision, requests=requests, errors=errors, latency=latency)
            for revision, share in self.state.traffic.copies.items():
                copies = self.whole(f"{revision} copies", self.rate * share / 100 * seconds)
                differ = self.whole(f"{revision} differs", copies * self.differs.get(revision, 0.0))
                latency = {str(bucket_of(self.slow.get(revision, 0.001))): copies}
                at = self.clock.now()
                seen = Window(revision, at, at, copies, 0, latency, compared=copies, disagreed=differ)
                self.backend._samples.add(name, seen, 0)
        due = [act for when, act in self.at if when <= self.clock.now() + seconds]
        self.at = [(when, act) for when, act in self.at if when > self.clock.now() + seconds]
        for act in due:
            act()

    def whole(self, what: str, amount: float) -> int:
        """Give the whole part of what arrived; the rest comes with the next."""
        self.rest[what] = self.rest.get(what, 0.0) + amount
        whole = int(self.rest[what] + 1e-9)
        self.rest[what] -= whole
        return whole

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something once that much virtual time has passed."""
        self.at.append((self.clock.now() + seconds, act))

    @property
    def state(self) -> EndpointState:
        found = self.backend.observe(SPEC.name)
        assert found is not None
        return found

    @property
    def live(self) -> dict[str, int]:
        return self.state.traffic.live

    @property
    def there(self) -> list[str]:
        return [each.revision.id for each in self.state.revisions]

    @property
    def tables(self) -> list[str]:
        """The tables that were written, as JSON."""
        return [write.detail for write in self.backend.writes if write.verb == "set-traffic"]

    def carry(self, ticket: Any) -> None:
        while not ticket.phase.ended:
            ticket = self.backend.advance(ticket)
        assert ticket.phase.value == "succeeded", ticket

    def put(self, *revisions: Revision) -> None:
        for revision in revisions:
            self.carry(self.backend.put_revision(SPEC, revision))

    def set_traffic(self, weights: dict[str, int]) -> None:
        self.carry(self.backend.set_traffic(SPEC.name, Traffic(weights)))

    # Operations

    def begin(self, kind: Kind, cursor: Any, **options: Any) -> Record:
        self.number += 1
        record = Record(f"{kind.value}-{self.number}", kind, "memory", SPEC.name, to_json(cursor))
        return self.journal.create(record, **options)

    def rollout(self, revision: Revision, policy: RolloutPolicy | None = None, **options: Any) -> Record:
        cursor = RolloutCursor(SPEC, revision, policy or RolloutPolicy.all_at_once(), **options)
        return self.begin(Kind.ROLLOUT, cursor)

    on_staging: Any = None
    """Holds a revision against its golden outputs on an endpoint of its own, where the backend declares that."""

    def flow_of(self, record: Record, check: Any = None, backend: Any = None) -> Flow[Any]:
        backend = backend or self.backend
        if record.kind is Kind.ROLLOUT:
            return RolloutFlow(backend, from_json(RolloutCursor, record.cursor), check, self.on_staging).run()
        if record.kind is Kind.ROLLBACK:
            return RollbackFlow(backend, from_json(RollbackCursor, record.cursor)).run()
        return SingleFlow(backend, from_json(SingleCursor, record.cursor)).run()

    def drive(self, record: Record, check: Any = None, backend: Any = None) -> Record:
        """Drive an operation on from where the journal has it."""
        self.number += 1
        taken = self.journal.acquire(record.id, f"elsewhere-{self.number}:1:x")
        world = World(taken, self.journal, clock=self.clock, sink=self.emitted.append)
        flow = retrying(self.flow_of(taken, check, backend), RetryPolicy(), rng=random.Random(0))
        try:
            run(self._meeting(flow), world)
        finally:
            world.finish()
        return self.journal.read(record.id)

    def _meeting(self, flow: Flow[Any]) -> Flow[Any]:
        dialogue = Dialogue(flow)
        while dialogue.goes_on():
            self.meet(dialogue.effect)
            try:
                dialogue.answer = yield dialogue.effect
            except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
                dialogue.error = raised
        return dialogue.value

    def once(self, wanted: Callable[[Effect], bool], act: Callable[[], object]) -> None:
        """Do something once, just before the first effect that ``wanted`` tells."""
        done: list[bool] = []

        def meet(effect: Effect) -> None:
            if not done and wanted(effect):
                done.append(True)
                act()

        self.meet = meet

    def tell(self, record: Record, verb: Verb, reason: str = "") -> None:
        self.journal.tell(record.id, verb, reason)

    def cursor(self, record: Record) -> RolloutCursor:
        return from_json(RolloutCursor, self.journal.read(record.id).cursor)

    def history(self) -> list[tuple[str, str]]:
        lines = self.journal.history(backend="memory", target=SPEC.name)
        return [(line.entry.what, line.entry.revision) for line in lines]

    def events(self, name: str) -> list[Event]:
        return [event for event in self.emitted if event.name.value == name]

    def names(self) -> list[str]:
        return [event.name.value for event in self.emitted]


@pytest.fixture
def make_scene():
    """Give ``make_scene(steps=2, path=None, capabilities=...)``."""
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        made.append(Scene(**options))
        return made[-1]

    yield make
    for scene in made:
        scene.journal.close()
        for event in scene.emitted:
            assert set(event.fields) <= COMMON_FIELDS | EVENT_FIELDS[event.name.value], event


@pytest.fixture
def scene(make_scene):
    return make_scene()


@attrs.frozen
class Meets:
    """Predicates on effects."""

    @staticmethod
    def saved(stage: str) -> Callable[[Effect], bool]:
        """The cursor of a stage is about to be written."""
        return lambda effect: isinstance(effect, Save) and effect.cursor.get("stage") == stage

    @staticmethod
    def call(what: str) -> Callable[[Effect], bool]:
        """The provider is about to be called."""
        return lambda effect: isinstance(effect, Call) and effect.what == what

    @staticmethod
    def emit(name: str) -> Callable[[Effect], bool]:
        return lambda effect: isinstance(effect, Emit) and effect.name.value == name


@pytest.fixture(scope="session")
def meets():
    return Meets


@pytest.fixture
def python():
    """Give ``python(code, *arguments)``: start it in a process of its own, with its pipes; ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ))
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def v1(revision):
    return revision("1.0.0")


@pytest.fixture
def v2(revision):
    return revision("1.1.0")


@pytest.fixture
def v3(revision):
    return revision("1.2.0")


@pytest.fixture
def serving(scene, v1):
    """A scene in which v1 serves."""
    scene.put(v1)
    scene.backend.writes.clear()
    return scene
