"""A town for rollouts: one endpoint in memory, virtual time, changing weather, users, drivers that die, and a ledger of its own.

Every effect of every driver passes through ``Town.step``; the rules that it is held against stand in ``conftest.py``, which loads this file.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import attrs

from modeldeploy.backends.memory import EVERYTHING, MemoryBackend
from modeldeploy.engine import rollback
from modeldeploy.engine.drivers import World
from modeldeploy.engine.effects import Dialogue, Emit, Save
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import HistoryEntry, Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.engine.rollback import RollbackCursor, RollbackFlow
from modeldeploy.engine.rollout import RolloutCursor, RolloutFlow, Stage
from modeldeploy.engine.single import SingleCursor, SingleFlow
from modeldeploy.errors import ConflictError, FencedError, ModelDeployError, NotFoundError, QuotaError, UnavailableError
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.faults import FaultyBackend
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.events import Event
from modeldeploy.values.metrics import Window, bucket_of
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import WHOLE, EndpointSpec, Revision, Traffic

SPEC = EndpointSpec("iris")
USER_WORDS = {Verb.RESUME, Verb.SKIP, Verb.PROMOTE}


def revision(version: str) -> Revision:
    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("iris", version, digest, f"memory:{version}", "function", signature))


class Weather(FaultyBackend):
    """What the provider does on a bad day, as long as the town says so."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self.gap = False
        self.refuses = self.loses = self.breaks = 0

    def clear(self) -> None:
        self.gap, self.refuses, self.loses, self.breaks = False, 0, 0, 0

    def window(self, endpoint, revision, since, until, *, share=None):
        if self.gap:
            raise UnavailableError("the metrics are gone")
        slot = self.capabilities.meter_resolution
        if slot:
            assert since % slot == 0
            assert until % slot == 0
        if not self.capabilities.meters_by_share:
            share = None
        return super().window(endpoint, revision, since, until, share=share)

    def set_traffic(self, endpoint, traffic, *, expect=None):
        if self.refuses:
            self.refuses -= 1
            raise QuotaError("these weights are refused")
        return super().set_traffic(endpoint, traffic, expect=expect)

    def advance(self, ticket):
        after = super().advance(ticket)
        if self.loses:
            self.loses -= 1
            raise UnavailableError("done, and the answer is lost")
        if self.breaks:
            self.breaks -= 1
            raise QuotaError("done, and then it broke")
        return after


@attrs.define(eq=False)
class Driver:
    """One process that drives an operation; ``said`` are the decisions that it told since its last write."""

    world: World
    dialogue: Dialogue[Any]
    operation: str
    said: list[Event] = attrs.field(factory=list)


@attrs.define
class Case:
    """What the town knows of one operation by itself."""

    record: Record
    ledger: Counter[tuple[str, int]]
    """What each revision had answered under each share when it began."""
    told: set[Verb] = attrs.field(factory=set)
    step_at: int = 0
    """What the new revision had answered when the present step was reached."""
    failed: bool = False
    """Whether a gate failed and no user has said a word since."""


class Town:
    """One endpoint and all who act on it."""

    def __init__(self, *, looks: int = 1, by_share: bool = True, resolution: float = 0.0, sticky: bool = False) -> None:
        self.clock = FlowingClock()
        self.clock.flow = self.flow
        capabilities = attrs.evolve(EVERYTHING, meters_by_share=by_share, meter_resolution=resolution, sticky=sticky)
        self.sticky = sticky
        self.backend = MemoryBackend(clock=self.clock.now, steps=looks, capabilities=capabilities)
        self.weather = Weather(self.backend)
        self.journal = Journal(None, clock=self.clock.now)
        self.pool = [revision(f"1.{number}.0") for number in range(4)]
        self.rate, self.errors, self.slow = 200.0, {}, {}
        self.custom: Any = True
        self.driver: Driver | None = None
        self.frozen: list[Driver] = []
        self.cases: dict[str, Case] = {}
        self.number = self.written = self.acts = 0
        self.given: Counter[tuple[str, int]] = Counter()
        self.answered: Counter[str] = Counter()
        self._rest: Counter[str] = Counter()
        self.banned: dict[str, int] = {}
        self.reign: str | None = None
        self.foreign = False
        self.ours: Traffic | None = None
        self.left_over: set[str] = set()
        self.copier: str | None = None

    # Requests

    def flow(self, seconds: float) -> None:
        """Let requests arrive by the table that holds, and count them in a ledger of our own."""
        state = self.backend.observe(SPEC.name)
        if state is None:
            return
        for name, share in state.traffic.live.items():
            requests = self._whole(name, self.rate * share / WHOLE * seconds)
            errors = self._whole(f"{name} fails", requests * self.errors.get(name, 0.0))
            self.given[name, share] += requests
            self.answered[name] += requests
            self.backend.record(SPEC.name, name, requests=requests, errors=errors, latency=self.slow.get(name, 0.01))
        for name, share in state.traffic.copies.items():
            copies = self._whole(f"{name} copies", self.rate * share / WHOLE * seconds)
            differ = self._whole(f"{name} differs", copies * self.errors.get(name, 0.0))
            self.given[name, 0] += copies
            self.answered[name] += copies
            latency, at = {str(bucket_of(0.01)): copies}, self.clock.now()
            seen = Window(name, at, at, copies, 0, latency, compared=copies, disagreed=differ)
            self.backend._samples.add(SPEC.name, seen, 0)

    def _whole(self, what: str, amount: float) -> int:
        """Give the whole part and keep the rest for the next time."""
        self._rest[what] += amount
        whole = int(self._rest[what])
        self._rest[what] -= whole
        return whole

    # What is there

    @property
    def target(self) -> Traffic | None:
        found = self.backend._endpoints.get(SPEC.name)
        return found.target if found else None

    @property
    def there(self) -> list[str]:
        state = self.backend.observe(SPEC.name)
        return [each.revision.id for each in state.revisions] if state else []

    @property
    def active(self) -> Record | None:
        found = self.journal.unfinished(backend="memory", target=SPEC.name)
        assert len(found) <= 1, found
        return found[0] if found else None

    def cursor(self, record: Record) -> RolloutCursor:
        return from_json(RolloutCursor, record.cursor)

    # Users

    def begin(self, kind: Kind, cursor: Any) -> Record:
        """Journal an operation as the handles do: only rollbacks and deletions end what goes on."""
        self.number += 1
        record = Record(f"{kind.value}-{self.number}", kind, "memory", SPEC.name, to_json(cursor))
        active = self.active
        supersede = active.id if active is not None and kind is not Kind.ROLLOUT else None
        record = self.journal.create(record, supersede=supersede)
        self.cases[record.id] = Case(record, Counter(self.given))
        self.foreign = False
        return record

    def roll_out(self, which: int, policy: Any, keep: int) -> None:
        wanted = self.pool[which]
        cursor = RolloutCursor(SPEC, wanted, policy, keep=keep, sticky=self.sticky)
        try:
            self.begin(Kind.ROLLOUT, cursor)
        except ConflictError:
            assert self.active is not None
        else:
            self.banned.pop(wanted.id, None)

    def roll_back(self, to: str | None) -> None:
        lines = self.journal.history(backend="memory", target=SPEC.name)
        state = self.backend.observe(SPEC.name)
        try:
            found = rollback.target(lines, endpoint=SPEC.name, stable=state.stable if state else None, to=to)
        except NotFoundError:
            return
        if state is not None:
            self.begin(Kind.ROLLBACK, RollbackCursor(SPEC, found, "because"))
            self.banned.pop(found.id, None)

    def delete(self) -> None:
        ticket = self.backend.drop_endpoint(SPEC.name)
        self.begin(Kind.DELETE, SingleCursor(ticket, history=HistoryEntry("deleted", "", "no more")))

    def tell(self, verb: Verb) -> None:
        record = self.active
        if record is None or record.kind is not Kind.ROLLOUT:
            return
        self.journal.tell(record.id, verb, "")
        case = self.cases[record.id]
        case.told.add(verb)
        if verb in USER_WORDS:
            self.foreign = False
            case.failed = False
            self.banned.pop(self.cursor(record).revision.id, None)

    def interfere(self, weights: dict[str, int]) -> None:
        """Somebody else changes the table, with another tool."""
        record, new = self.active, Traffic(weights)
        if not self.foreign:
            self.ours = self.target
        known = [table for table in (self.ours, self._wanted(record)) if table]
        self.foreign = self._minds(record) and not any(new.same_as(table) for table in known)
        ticket = self.backend.set_traffic(SPEC.name, new)
        while not ticket.phase.ended:
            ticket = self.backend.advance(ticket)
        self.written = len(self.backend.writes)
        self.copier = None
        live = {name: share for name, share in weights.items() if share}
        self.reign = max(live, key=lambda name: live[name])
        for name, share in live.items():
            if name in self.banned:
                self.banned[name] = max(share, self.banned[name])

    def _minds(self, record: Record | None) -> bool:
        """Whether a rollout goes on that must not overwrite another table: not one that was just told to go on from whatever it finds."""
        if record is None or record.kind is not Kind.ROLLOUT or not record.cursor["begun"]:
            return False
        told = {command.verb for command in self.journal.commands(record.id, after=record.cursor["seen"])}
        return not (told & USER_WORDS or (record.cursor["drifted"] and not record.cursor["paused"]))

    def _wanted(self, record: Record | None) -> Traffic | None:
        if record is None or record.kind is not Kind.ROLLOUT:
            return None
        cursor = self.cursor(record)
        walks = cursor.stage is Stage.WALK and cursor.step < len(cursor.policy.steps)
        return cursor.table(cursor.step) if walks else None

    def spoil(self, rate: float) -> None:
        """Let the revision that is rolled out fail so often from now on."""
        record = self.active
        if record is not None and record.kind is Kind.ROLLOUT:
            self.errors[self.cursor(record).revision.id] = rate

    def score(self, new: float, old: float, count: int) -> None:
        record = self.active
        if record is None or record.kind is not Kind.ROLLOUT:
            return
        cursor = self.cursor(record)
        pairs = ((cursor.revision.id, new), (cursor.stable, old))
        rows = [(f"{name}-{self.number}-{each}", name, value) for name, value in pairs if name for each in range(count)]
        self.journal.record_outcomes(record.id, rows)

    # Drivers

    def take(self) -> Driver | None:
        """Let a new process drive what is not finished, as soon as the last one's lease is over."""
        record = self.active
        if record is None:
            return None
        self.number += 1
        owner = f"elsewhere-{self.number}:1:x"
        try:
            taken = self.journal.acquire(record.id, owner)
        except ConflictError:
            self.clock.sleep(self.journal.lease + 1)
            taken = self.journal.acquire(record.id, owner)
        world = World(taken, self.journal, clock=self.clock)
        flow = retrying(self._flow(taken), RetryPolicy(attempts=3, deadline=60.0), rng=random.Random(0))
        return Driver(world, Dialogue(flow), taken.id)

    def _flow(self, record: Record) -> Any:
        if record.kind is Kind.ROLLOUT:
            return RolloutFlow(self.weather, self.cursor(record), None).run()
        if record.kind is Kind.ROLLBACK:
            return RollbackFlow(self.weather, from_json(RollbackCursor, record.cursor)).run()
        return SingleFlow(self.weather, from_json(SingleCursor, record.cursor)).run()

    def drive(self, effects: int) -> None:
        """Let the driver there is, or a new one, perform so many effects."""
        self.driver = self.driver or self.take()
        for _ in range(effects):
            if self.driver is None or not self.step(self.driver):
                self.driver = None
                return

    def step(self, driver: Driver) -> bool:
        """Perform one effect; False when the driver has ended."""
        try:
            if not driver.dialogue.goes_on():
                driver.world.finish()
                return False
        except FencedError:
            return False
        except ModelDeployError:
            driver.world.finish()
            return False
        self.acts += 1
        effect, before = driver.dialogue.effect, self.journal.read(driver.operation)
        try:
            driver.dialogue.answer = driver.world.perform(effect)
        except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
            driver.dialogue.error = raised
        else:
            if isinstance(effect, Emit):
                self._heard(driver, effect)
            elif isinstance(effect, Save):
                self._saved(driver, before)
        self._look(before)
        return True

    def kill(self) -> None:
        """End the driver's process before its next effect; its lease runs on."""
        self.driver = None

    def freeze(self) -> None:
        if self.driver is not None:
            self.frozen.append(self.driver)
            self.driver = None

    def thaw(self) -> None:
        """Let frozen drivers go on: one whose operation was taken over or ended must not write any more."""
        for driver in self.frozen:
            record = self.journal.read(driver.operation)
            ours = record.seq == driver.world.record.seq and not record.phase.ended
            if ours and self.driver is None:
                self.driver = driver
                continue
            assert not ours, "two drivers hold one operation"
            before = len(self.backend.writes)
            for _ in range(4):
                if not self.step(driver):
                    break
            assert len(self.backend.writes) == before, "a fenced driver wrote"
            assert self.journal.read(driver.operation).seq == record.seq
        self.frozen.clear()

    def settle(self) -> None:
        """In fair weather, and once the user gives up what waits, every operation comes to an end."""
        self.weather.clear()
        self.backend._doomed.clear()
        self.thaw()
        for _ in range(6):
            if self.active is None:
                return
            self.drive(4_000)
            record = self.active
            if record is not None:
                self.tell(Verb.ABORT)
        assert self.active is None, f"{self.active.id} never ends: {self.active.cursor.get('stage')}"

    # What is held against the rules

    def _heard(self, driver: Driver, effect: Emit) -> None:
        """Note what a driver told."""

    def _saved(self, driver: Driver, before: Record) -> None:
        """Note what a driver wrote."""

    def _look(self, record: Record) -> None:
        """Look at the endpoint after an effect of a driver."""
