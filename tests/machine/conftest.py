"""A town for rollouts: one endpoint in memory, virtual time, changing weather, users, drivers that die, and a ledger of its own.

Every effect of every driver passes through ``Town.step``, which holds what was just done against the rules; nothing of the engine's own
book-keeping is trusted where the town can count for itself.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from typing import Any

import attrs
import pytest

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
from modeldeploy.values.events import Event, Name
from modeldeploy.values.gate import Metric, Verdict
from modeldeploy.values.metrics import Window, bucket_of
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.rollout import OnInconclusive
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

    # Rules

    def _heard(self, driver: Driver, effect: Emit) -> None:
        driver.said.append(Event(effect.name, self.clock.now(), driver.operation, effect.level, effect.fields))
        case = self.cases[driver.operation]
        if effect.name is Name.ROLLOUT_STEP:
            case.step_at = self.answered[effect.fields["revision"]]
        if effect.fields.get("left_over"):
            self.left_over.add(effect.fields["left_over"])
        if effect.name is Name.ROLLOUT_VERDICT and not self._by_hand(case):
            self._weigh(case, Verdict(effect.fields["verdict"]))

    def _by_hand(self, case: Case) -> bool:
        """Whether anything but metrics decides."""
        policy = self.cursor(case.record).policy
        return any(gate.metric in {Metric.CUSTOM, Metric.OUTCOME} for gate in policy.gates)

    def _weigh(self, case: Case, verdict: Verdict) -> None:
        cursor = self.cursor(self.journal.read(case.record.id))
        policy, name = cursor.policy, cursor.revision.id
        if verdict is Verdict.PASS and policy.gates and not (cursor.forced or Verb.PROMOTE in case.told):
            assert not self.weather.gap, "passed blindly"
            assert self.answered[name] - case.step_at >= policy.min_sample, "passed without evidence"
        if verdict is Verdict.FAIL:
            assert not self.weather.gap, "failed blindly"
            assert self.answered[name], "failed without a single answer"

    def _saved(self, driver: Driver, before: Record) -> None:
        said, driver.said = driver.said, []
        record = self.journal.read(driver.operation)
        self._reigns(record, before)
        if record.kind is not Kind.ROLLOUT:
            return
        case, old, new = self.cases[record.id], self.cursor(before), self.cursor(record)
        self._goes_forward(case, old, new, said)
        self._counts_once(case, old, new)
        if old.stage in {Stage.BACK, Stage.CLEAN}:
            assert new.stage is old.stage, f"{old.stage} became {new.stage}"
        if case.failed:
            assert new.verdict is Verdict.FAIL, "a failure was forgotten"
        if new.verdict is Verdict.FAIL and (new.stage is Stage.BACK or new.paused) and not case.failed:
            case.failed = True
            self.banned[new.revision.id] = self.target.share(new.revision.id) if self.target else 0
        if record.phase.ended and case.failed and new.revision.id in self.banned:
            share = new.baseline.share(new.revision.id) if new.baseline else 0
            self.banned[new.revision.id] = min(share, self.banned[new.revision.id])

    def _goes_forward(self, case: Case, old: RolloutCursor, new: RolloutCursor, said: list[Event]) -> None:
        """A step is left for a reason: evidence, no gates, a user's word, or a policy that says so."""
        if new.step <= old.step or old.stage is not Stage.WALK or not new.policy.gates:
            return
        verdicts = {event.fields["verdict"] for event in said if event.name is Name.ROLLOUT_VERDICT}
        promotes = new.policy.on_inconclusive is OnInconclusive.PROMOTE
        whole = old.percent == WHOLE and not (verdicts & {"fail", "blind"})
        reasons = (
            "pass" in verdicts,
            "inconclusive" in verdicts and promotes,
            whole,
            Verb.SKIP in case.told,
            new.forced and Verb.PROMOTE in case.told,
            old.drifted,
        )
        assert any(reasons), f"step {old.step} became {new.step} without a reason: {verdicts}"

    def _counts_once(self, case: Case, old: RolloutCursor, new: RolloutCursor) -> None:
        """No request is counted twice, and what was counted is kept."""
        assert new.evidence.upto >= old.evidence.upto
        assert new.seen >= old.seen
        name = new.revision.id
        for event, strata in new.evidence.strata.items():
            for stratum in strata:
                # The towns' shadows copy a percentage that is no step of theirs.
                share = 0 if stratum.new_share == new.policy.copies else stratum.new_share
                # The first slot may hold what was answered under the same share just before.
                slot = round(200 * self.backend.capabilities.meter_resolution)
                given = self.given[name, share] - case.ledger[name, share] + slot
                assert self._coarse or stratum.new_seen <= given, f"{event} counted {stratum} of {given}"
            before = old.evidence.strata.get(event, ())
            assert sum(each.new_seen for each in strata) >= sum(each.new_seen for each in before)

    @property
    def _coarse(self) -> bool:
        """Whether the backend cannot tell the shares apart."""
        return not self.backend.capabilities.meters_by_share

    def _reigns(self, record: Record, before: Record) -> None:
        """Note who has all traffic by right, from the history."""
        if not record.phase.ended or before.phase.ended:
            self._promoted(record, before)
            return
        if record.kind is Kind.DELETE and record.phase.value == "succeeded":
            self.reign = self.copier = None
            self.banned.clear()
            self.left_over.clear()
        if record.kind is Kind.ROLLBACK and record.phase.value == "succeeded":
            wanted = from_json(RollbackCursor, record.cursor).revision.id
            # Somebody else may have been quicker than the word that it is done.
            self.reign = wanted if self.target is not None and wanted in self.target.live else self.reign
            self.copier = None
        if record.kind is Kind.ROLLOUT:
            self._ended(record)
        elif record.phase.value != "succeeded" and self.target is not None:
            # What was begun and failed has left a table that somebody asked for.
            self.reign = max(self.target.live, key=lambda name: self.target.live[name], default=None)

    def _promoted(self, record: Record, before: Record) -> None:
        moved = record.kind is Kind.ROLLOUT and record.cursor["stage"] == "tidy" and before.cursor["stage"] == "promote"
        if moved and not self.foreign:
            self.reign = self.cursor(record).revision.id

    def _ended(self, record: Record) -> None:
        cursor, state = self.cursor(record), self.backend.observe(SPEC.name)
        if self.copier == record.id:
            self.copier = None
        backs = cursor.stage in {Stage.BACK, Stage.PARK}
        if backs and self.target is not None and self.reign not in self.target.live:
            # Somebody else decided in the midst of it; who goes back wants what was there before.
            self.reign = cursor.stable
        if cursor.stage is Stage.TIDY and state is not None and not self.foreign:
            idle = [each for each in self.there if not state.traffic.share(each) and each not in self.left_over]
            assert len(idle) <= cursor.keep, f"{idle} were left behind"
        if cursor.stage is Stage.CLEAN and not cursor.existed and "could not be removed" not in record.outcome:
            assert cursor.revision.id not in self.there, "a refused revision was left behind"

    def _look(self, record: Record) -> None:
        """Hold the endpoint against the rules, after each effect."""
        self._check_writes(record)
        target = self.target
        if target is None:
            return
        live = target.live
        assert sum(live.values()) in {0, WHOLE}
        if not live:
            assert self.reign is None, "the endpoint lost all its traffic"
            return
        for name, most in self.banned.items():
            share = live.get(name, 0)
            assert share <= most, f"{name} failed a gate and takes {share} % again"
            self.banned[name] = most
        if self.reign is not None and self.reign not in live:
            self._check_interregnum()
        if target.copies:
            assert self.copier is not None, f"copies flow to {target.copies} for nobody"

    def _check_interregnum(self) -> None:
        """Stable has nothing: only at the last step, on the way back from it, or under a rollback."""
        record = self.active
        assert record is not None, f"{self.reign} lost its traffic"
        if record.kind is Kind.ROLLOUT:
            cursor = self.cursor(record)
            late = {Stage.PROMOTE, Stage.TIDY, Stage.BACK}
            assert cursor.percent == WHOLE or cursor.stage in late or cursor.stable != self.reign, (
                f"{self.reign} has nothing"
            )

    def _check_writes(self, record: Record) -> None:
        """Each table that a driver writes is the one that its cursor names."""
        new = self.backend.writes[self.written :]
        self.written = len(self.backend.writes)
        for write in new:
            if write.verb == "drop-endpoint":
                self.reign = self.copier = None
                self.banned.clear()
            if write.verb != "set-traffic":
                continue
            table = from_json(Traffic, json.loads(write.detail))
            if record.kind is Kind.ROLLBACK:
                assert table.live == {from_json(RollbackCursor, record.cursor).revision.id: WHOLE}
                continue
            cursor = self.cursor(record)
            if cursor.stage is Stage.WALK:
                assert table.same_as(cursor.table(cursor.step)), "another table than its step's"
                assert not self.foreign, "somebody else's table was overwritten"
            else:
                assert table.same_as(cursor.baseline or Traffic()), "another table than the one before"
            self.copier = record.id if table.copies else self.copier


@pytest.fixture(scope="session")
def town():
    """Give the class of towns."""
    return Town
