"""The conformance suite of the engine over a backend: roll out, take back, roll back; with faults, and stopped before every effect.

The flows are the library's own, so what fails here is a backend that does not keep the rules when it matters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import pytest

from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.effects import Effect, Flow
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.engine.rollback import RollbackCursor, RollbackFlow
from modeldeploy.engine.rollout import RolloutCursor, RolloutFlow
from modeldeploy.engine.single import SingleCursor, SingleFlow
from modeldeploy.errors import OperationCancelled, OperationFailed
from modeldeploy.spi import Serving
from modeldeploy.testing.contract import Conformance
from modeldeploy.testing.faults import Fault, FaultyBackend
from modeldeploy.testing.harness import Harness
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase, Ticket

_RETRY = RetryPolicy(first=0.02, cap=0.1)
_GATE_SAMPLE = 5
_STEPS = (10, 50)
_MOST = 1_000


class _StoppedError(BaseException):
    """The driver dies here; not an Exception, so that no flow can notice it."""


class Tables:
    """A backend that notes every table that an endpoint goes through, as seen before and after each ``advance``."""

    def __init__(self, inner: Serving) -> None:
        self._inner = inner
        self._last: dict[str, int] | None = None
        self.seen: list[dict[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def advance(self, ticket: Ticket) -> Ticket:
        """Pass on, and look before and after: a provider may move between two calls."""
        self.look(ticket.target)
        after = self._inner.advance(ticket)
        self.look(ticket.target)
        return after

    def look(self, endpoint: str) -> None:
        """Note the table if it is another one; what holds at the first look is where it began."""
        state = self._inner.observe(endpoint)
        live = state.traffic.live if state else {}
        if self._last is not None and live and live != self._last:
            self.seen.append(live)
        self._last = live


@attrs.define
class Operation:
    """One operation of the engine on the backend under test, driven as often as it takes."""

    harness: Harness
    kind: Kind
    cursor: Mapping[str, Any]
    target: str
    backend: Any
    journal: Journal = attrs.field(factory=Journal)
    record: Record = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        made = Record(f"{self.kind.value}-1", self.kind, self.backend.name, self.target, self.cursor)
        self.record = self.journal.create(made)

    def drive(self, *, stop: int | None = None) -> bool:
        """Take the operation up from the journal; the driver dies before effect ``stop`` (from 0). Whether it came to its end."""
        self.record = self.journal.read(self.record.id)
        world = World(self.record, self.journal, clock=self.harness.clock)
        flow = retrying(self._flow(), _RETRY, rng=random.Random(0))  # noqa: S311 - repeatable
        try:
            run(_until(flow, stop), world)
        except _StoppedError:
            return False
        except (OperationFailed, OperationCancelled):
            if not self.journal.read(self.record.id).phase.ended:
                raise
        return True

    def end(self) -> Record:
        """Read how it stands in the journal."""
        return self.journal.read(self.record.id)

    def _flow(self) -> Flow[Any]:
        if self.kind is Kind.ROLLOUT:
            return RolloutFlow(self.backend, from_json(RolloutCursor, self.record.cursor), None).run()
        if self.kind is Kind.ROLLBACK:
            return RollbackFlow(self.backend, from_json(RollbackCursor, self.record.cursor)).run()
        return SingleFlow(self.backend, from_json(SingleCursor, self.record.cursor)).run()


def _until(flow: Flow[Any], stop: int | None) -> Flow[Any]:
    """Pass a flow's effects on, and die before the one numbered ``stop``."""
    answer: Any = None
    error: Exception | None = None
    done = 0
    while True:
        try:
            effect: Effect = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value
        if done == stop:
            raise _StoppedError
        answer, error, done = None, None, done + 1
        try:
            answer = yield effect
        except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
            error = raised


Scenario = Callable[[Harness, Any, EndpointSpec], Operation]
"""Prepares an endpoint and gives the operation to be driven; ``Any`` is the backend it must use."""


def deploy(harness: Harness, backend: Any, spec: EndpointSpec) -> Operation:
    """Put the first revision on a new endpoint."""
    cursor = RolloutCursor(spec, harness.revisions[0], RolloutPolicy.all_at_once())
    return Operation(harness, Kind.ROLLOUT, to_json(cursor), spec.name, backend)


def promote(harness: Harness, backend: Any, spec: EndpointSpec) -> Operation:
    """Walk a good revision up to everything."""
    harness.succeed(harness.backend.put_revision(spec, harness.revisions[0]))
    policy = RolloutPolicy.canary(_walk(harness), soak=0.1, interval=0.1)
    cursor = RolloutCursor(spec, harness.revisions[1], policy)
    return Operation(harness, Kind.ROLLOUT, to_json(cursor), spec.name, backend)


def take_back(harness: Harness, backend: Any, spec: EndpointSpec) -> Operation:
    """Walk a broken revision until its gate fails."""
    harness.succeed(harness.backend.put_revision(spec, harness.revisions[0]))
    assert harness.broken is not None
    policy = RolloutPolicy.canary(
        _walk(harness), soak=0.3, gates=["error_rate <= 10%"], min_sample=_GATE_SAMPLE, interval=0.2
    )
    cursor = RolloutCursor(spec, harness.broken, policy)
    return Operation(harness, Kind.ROLLOUT, to_json(cursor), spec.name, backend)


def roll_back(harness: Harness, backend: Any, spec: EndpointSpec) -> Operation:
    """Give everything back to the first revision."""
    first, second = harness.revisions[:2]
    for revision in (first, second):
        harness.succeed(harness.backend.put_revision(spec, revision))
    harness.route(spec, Traffic.all_to(second.id))
    return Operation(harness, Kind.ROLLBACK, to_json(RollbackCursor(spec, first, "conformance")), spec.name, backend)


def roll_back_cold(harness: Harness, backend: Any, spec: EndpointSpec) -> Operation:
    """Give everything back to a revision that is not there any more and must be made ready again."""
    first, second = harness.revisions[:2]
    operation = roll_back(harness, backend, spec)
    harness.succeed(harness.backend.drop_revision(spec.name, first.id))
    assert harness.state(spec).stable == second.id
    return operation


def delete(harness: Harness, backend: Any, spec: EndpointSpec) -> Operation:
    """Remove an endpoint with two revisions."""
    for revision in harness.revisions[:2]:
        harness.succeed(harness.backend.put_revision(spec, revision))
    cursor = SingleCursor(harness.backend.drop_endpoint(spec.name))
    return Operation(harness, Kind.DELETE, to_json(cursor), spec.name, backend)


SCENARIOS: dict[str, Scenario] = {
    "deploy": deploy,
    "promote": promote,
    "take_back": take_back,
    "roll_back": roll_back,
    "roll_back_cold": roll_back_cold,
    "delete": delete,
}


@attrs.frozen
class Outcome:
    """How an operation came out: what must be the same whatever happened on the way."""

    phase: Phase
    revisions: tuple[str, ...] | None
    """Those that are there, sorted; None when there is no endpoint."""
    live: Mapping[str, int]
    settled: bool
    tables: tuple[Mapping[str, int], ...]
    """The tables that the endpoint went through, in order."""


class RolloutConformance(Conformance):
    """Every operation of the engine: straight through, with faults, and stopped before each of its effects."""

    def test_a_deployment_goes_through(self, harness: Harness) -> None:
        """The first revision takes everything."""
        first = harness.revisions[0].id
        assert _straight(harness, deploy) == Outcome(
            Phase.SUCCEEDED, (first,), {first: WHOLE}, settled=True, tables=({first: WHOLE},)
        )

    def test_a_canary_promotes_through_its_steps(self, harness: Harness) -> None:
        """Each step's table is reached once, in order."""
        first, second = (revision.id for revision in harness.revisions[:2])
        outcome = _straight(harness, promote)
        walked = [{first: WHOLE - step, second: step} for step in _walk(harness)[:-1]]
        assert outcome.phase is Phase.SUCCEEDED
        assert outcome.tables == (*walked, {second: WHOLE})
        assert (outcome.live, outcome.settled) == ({second: WHOLE}, True)

    def test_a_gate_takes_a_broken_revision_back(self, harness: Harness) -> None:
        """After the gate failed the old table holds; the broken revision had its first share and no more."""
        if not _gated(harness) or harness.broken is None:
            pytest.skip("Harness(broken=...), meters and a split are needed to see a gate fail")
        first, broken, share = harness.revisions[0].id, harness.broken.id, _STEPS[0]
        outcome = _straight(harness, take_back)
        assert outcome.phase is Phase.FAILED
        assert outcome.tables == ({first: WHOLE - share, broken: share}, {first: WHOLE})

    def test_a_rollback_gives_everything_back_at_once(self, harness: Harness) -> None:
        """One table, warm or cold."""
        first = harness.revisions[0].id
        for scenario in (roll_back, roll_back_cold):
            outcome = _straight(harness, scenario)
            assert (outcome.phase, outcome.live) == (Phase.SUCCEEDED, {first: WHOLE})
            assert outcome.tables == ({first: WHOLE},)

    def test_a_deletion_leaves_nothing(self, harness: Harness) -> None:
        """The endpoint and its revisions are gone."""
        outcome = _straight(harness, delete)
        assert (outcome.phase, outcome.revisions) == (Phase.SUCCEEDED, None)

    def test_one_fault_at_any_call_changes_nothing_in_the_end(self, harness: Harness) -> None:
        """A refusal or a lost answer at the n-th call of an operation, for every n of the sample."""
        for name, scenario in _runnable(harness):
            plain = _straight(harness, scenario)
            for number in range(1, _MOST, harness.sample):
                outcomes = [_with_faults(harness, scenario, {number: fault}) for fault in (Fault.REFUSE, Fault.LOSE)]
                assert [outcome for outcome, _met in outcomes] == [plain, plain], (
                    f"{name} with a fault at call {number}"
                )
                if not any(met for _outcome, met in outcomes):
                    break

    def test_many_faults_change_nothing_in_the_end(self, harness: Harness) -> None:
        """A bad day: half of all calls fail, by three seeds."""
        unlucky = False
        for name, scenario in _runnable(harness):
            plain = _straight(harness, scenario)
            for seed in range(3):
                outcome, met = _with_faults(harness, scenario, {}, seed=seed, rate=0.5)
                unlucky = unlucky or met
                assert outcome == plain, f"{name} with faults by seed {seed}"
        assert unlucky, "no seed gave a fault"

    def test_a_driver_that_dies_anywhere_does_no_harm(self, harness: Harness) -> None:
        """Crash everywhere: die before effect k, go on in a fresh driver; the same end, each table reached at most once."""
        for name, scenario in _runnable(harness):
            plain = _straight(harness, scenario)
            for stop in range(0, _MOST, harness.sample):
                outcome = _stopped(harness, scenario, stop)
                if outcome is None:
                    break
                assert outcome == plain, f"{name} stopped before effect {stop}"

    def test_an_abort_at_any_moment_ends_at_one_table_or_the_other(self, harness: Harness) -> None:
        """The driver dies before effect k and a user aborts: then the old table holds, unless the last step was over already."""
        first, second = (revision.id for revision in harness.revisions[:2])
        for stop in range(0, _MOST, harness.sample):
            outcome = _stopped(harness, promote, stop, tell=Verb.ABORT)
            if outcome is None:
                break
            where = f"aborted before effect {stop}: {outcome}"
            assert outcome.settled, where
            assert outcome.live == ({second: WHOLE} if outcome.phase is Phase.SUCCEEDED else {first: WHOLE}), where


def _walk(harness: Harness) -> tuple[int, ...]:
    """Give the steps of a canary; a backend that holds one live revision switches at once."""
    return (*_STEPS, WHOLE) if harness.backend.capabilities.split > 1 else (WHOLE,)


def _gated(harness: Harness) -> bool:
    capabilities = harness.backend.capabilities
    return harness.broken is not None and capabilities.meters and capabilities.split > 1


def _runnable(harness: Harness) -> Iterator[tuple[str, Scenario]]:
    for name, scenario in SCENARIOS.items():
        if scenario is not take_back or _gated(harness):
            yield name, scenario


def _straight(harness: Harness, scenario: Scenario) -> Outcome:
    outcome, _met = _with_faults(harness, scenario, {})
    return outcome


def _stopped(harness: Harness, scenario: Scenario, stop: int, *, tell: Verb | None = None) -> Outcome | None:
    """Stop the driver before an effect, leave a command for the next one, and let that go on; None when it ended before."""
    spec, tables = harness.endpoint(), Tables(harness.backend)
    operation = scenario(harness, tables, spec)
    if operation.drive(stop=stop):
        harness.cleanup()
        return None
    if tell is not None:
        operation.journal.tell(operation.record.id, tell, "conformance")
    assert operation.drive(), "a fresh driver does not come to the end"
    return _outcome(harness, spec, tables, operation)


def _with_faults(
    harness: Harness, scenario: Scenario, script: Mapping[int | str, Fault], **options: Any
) -> tuple[Outcome, bool]:
    spec, tables = harness.endpoint(), Tables(harness.backend)
    faulty = FaultyBackend(tables, script, retry_after=0.1, **options)  # type: ignore[arg-type]  # passes the rest on
    operation = scenario(harness, faulty, spec)
    assert operation.drive()
    return _outcome(harness, spec, tables, operation), bool(faulty.seen)


def _outcome(harness: Harness, spec: EndpointSpec, tables: Tables, operation: Operation) -> Outcome:
    """Read how it came out, and remove the endpoint: hundreds of them are made."""
    tables.look(spec.name)
    state, phase = harness.backend.observe(spec.name), operation.end().phase
    revisions = tuple(sorted(each.revision.id for each in state.revisions)) if state else None
    live, settled = (state.traffic.live, state.settled) if state else ({}, True)
    seen = tuple(tables.seen)
    harness.cleanup()
    return Outcome(phase, revisions, live, settled=settled, tables=seen)
