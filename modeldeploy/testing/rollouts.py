"""The conformance suite of the engine over a backend: every policy and gate outcome; with faults, and stopped before every effect.

The flows are the library's own, so what fails here is a backend that does not keep the rules when it matters.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs
import pytest

from modeldeploy.engine.record import Kind, Verb
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.testing.clock import VirtualClock
from modeldeploy.testing.contract import Conformance
from modeldeploy.testing.driving import Stage, Word
from modeldeploy.testing.faults import Fault, FaultyBackend
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.scenarios import SCENARIOS, Scenario
from modeldeploy.testing.watched import Table, Watched
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import WHOLE
from modeldeploy.values.ticket import Phase

_MOST = 1_000
_GIVES_UP = (Word(Verb.ABORT),)
_REFUSED = 5


@attrs.frozen
class Outcome:
    """How an operation came out: what must be the same whatever happened on the way."""

    phase: Phase
    revisions: tuple[str, ...] | None
    """Those that are there, sorted; None when there is no endpoint."""
    live: Mapping[str, int]
    copies: Mapping[str, int]
    settled: bool
    tables: tuple[Table, ...]
    """The tables that the endpoint went through, in order."""
    history: tuple[str, ...]
    counted: Any = None
    """What the gates counted, where time is virtual and so every request comes at its moment."""
    beats: int = 0
    """How long it took, likewise."""

    def walk(self, revision: str) -> tuple[str, ...]:
        """Say what the tables gave to a revision."""
        return tuple(table.word(revision) for table in self.tables)


class RolloutConformance(Conformance):
    """Every scenario: straight through, with faults, stopped before each effect, and with users who speak up at any moment.

    A subclass may name fewer ``scenarios`` where a step takes long; it says so where it does.
    """

    scenarios: ClassVar[tuple[Scenario, ...]] = SCENARIOS
    seeds: ClassVar[int] = 3
    """How many bad days there are at least; on one of them a call fails."""
    spoken: ClassVar[tuple[Verb, ...]] = (Verb.ABORT, Verb.PAUSE, Verb.PROMOTE, Verb.SKIP)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test for each scenario, and for each word of a user."""
        if "scenario" in metafunc.fixturenames:
            metafunc.parametrize("scenario", self.scenarios, ids=[each.name for each in self.scenarios])
        if "verb" in metafunc.fixturenames:
            metafunc.parametrize("verb", self.spoken, ids=[each.value for each in self.spoken])

    def test_it_ends_as_it_must(self, harness: Harness, scenario: Scenario) -> None:
        """Each table is reached once, in order; what the backend cannot do is refused or taken back, with stable as it was."""
        outcome, missing = straight(harness, scenario), scenario.missing(harness)
        assert not outcome.copies
        if missing:
            assert outcome.phase in {Phase.FAILED, Phase.CANCELLED}, missing
            assert outcome.live == {harness.revisions[0].id: WHOLE}
            assert len(outcome.tables) <= 2, "more than one step was walked"  # noqa: PLR2004 - there and back
        else:
            assert (outcome.phase, outcome.walk(_new(harness, scenario))) == (scenario.phase, scenario.walk)

    def test_one_fault_at_any_call_changes_nothing_in_the_end(self, harness: Harness, scenario: Scenario) -> None:
        """A refusal or a lost answer at the n-th call of an operation, for every n of the sample."""
        plain = straight(harness, scenario)
        for number in _sampled(harness, scenario, 1, every=harness.fault_sample):
            found = [with_faults(harness, scenario, {number: fault}) for fault in (Fault.REFUSE, Fault.LOSE)]
            for outcome, _met in found:
                assert _same(outcome, plain), f"{scenario.name} with a fault at call {number}: {outcome} not {plain}"
            if not any(met for _outcome, met in found):
                break

    def test_many_faults_change_nothing_in_the_end(self, harness: Harness, scenario: Scenario) -> None:
        """A bad day: half of all calls fail, by some seeds."""
        plain, unlucky = straight(harness, scenario), False
        for seed in range(_MOST):
            if unlucky and seed >= self.seeds:
                break
            outcome, met = with_faults(harness, scenario, {}, seed=seed, rate=0.5)
            unlucky = unlucky or met
            assert _same(outcome, plain), f"{scenario.name} with faults by seed {seed}: {outcome} not {plain}"

    def test_a_driver_that_dies_anywhere_does_no_harm(self, harness: Harness, scenario: Scenario) -> None:
        """Crash everywhere: die before effect k, go on in a fresh driver; the same end, each table reached at most once.

        Where time is virtual, the gates have counted the same requests and it took as long, too.
        """
        plain = straight(harness, scenario)
        for stop in _sampled(harness, scenario, 0):
            outcome = stopped(harness, scenario, stop)
            if outcome is None:
                break
            assert outcome == plain, f"{scenario.name} stopped before effect {stop}"

    def test_a_word_at_any_moment_is_heeded(self, harness: Harness, verb: Verb) -> None:
        """The driver dies before effect k and a user speaks: the next one heeds it, and no table is reached twice."""
        scenario = next(each for each in SCENARIOS if each.name == "canary")
        if scenario.missing(harness):
            pytest.skip("a split is needed to speak up between steps")
        plain = straight(harness, scenario)
        for stop in _sampled(harness, scenario, 0):
            outcome = stopped(harness, scenario, stop, tell=verb)
            if outcome is None:
                break
            problem = _unheeded(harness, verb, outcome, plain)
            assert not problem, f"{verb.value} said before effect {stop}: {problem}: {outcome}"


def _unheeded(harness: Harness, verb: Verb, outcome: Outcome, plain: Outcome) -> str:
    """Say what is wrong with the end of a canary to which a user said something; empty when nothing is."""
    first, second = (revision.id for revision in harness.revisions[:2])
    walk = outcome.walk(second)
    if not outcome.settled or outcome.copies or len(set(walk)) != len(walk):
        return "it is not settled, or a table was reached twice"
    if verb is Verb.ABORT:
        there = outcome.live == {second if outcome.phase is Phase.SUCCEEDED else first: WHOLE}
        return "" if there else "neither the old table nor the new one holds"
    if outcome.phase is not Phase.SUCCEEDED or outcome.live != {second: WHOLE}:
        return "it did not go through"
    if verb is Verb.PAUSE:
        return "" if _same(outcome, plain) else f"without the pause it would be {plain}"
    steps = plain.walk(second)
    return "" if [word for word in steps if word in walk] == [*walk] else "its tables are none of the policy's"


def _sampled(harness: Harness, scenario: Scenario, first: int, *, every: int = 1) -> Iterator[int]:
    """Give the numbers of the effects or calls in the sample; which ones differs from scenario to scenario.

    What the backend refuses in any case is looked at less closely.
    """
    step = every * harness.sample * (_REFUSED if scenario.missing(harness) else 1)
    return iter(range(first + zlib.crc32(scenario.name.encode()) % step, _MOST, step))


def _same(outcome: Outcome, plain: Outcome) -> bool:
    """Whether both came to the same end, in whatever time."""
    return attrs.evolve(outcome, counted=plain.counted, beats=plain.beats) == plain


def _new(harness: Harness, scenario: Scenario) -> str:
    """Name the revision that a scenario's walk is about."""
    broken = "broken" in scenario.needs and harness.broken is not None
    if scenario.name.startswith("deploy") and not broken:
        return harness.revisions[0].id
    return (harness.broken if broken else harness.revisions[1]).id  # type: ignore[union-attr]  # asked for above


def staged(harness: Harness, scenario: Scenario, **faults: Any) -> Stage:
    """Prepare a scenario on an endpoint of its own, with faults between the engine and the provider."""
    missing = scenario.missing(harness)
    if "broken" in missing:
        pytest.skip("Harness(broken=...) is needed to see a gate fail")
    watched = Watched(harness.backend, harness.clock.now)
    backend = FaultyBackend(watched, retry_after=0.1, **faults) if faults else watched  # type: ignore[arg-type]  # passes the rest on
    stage = Stage(harness, harness.endpoint(), watched, backend, words=list(_GIVES_UP if missing else scenario.words))
    scenario.begin(stage)
    return stage


def straight(harness: Harness, scenario: Scenario) -> Outcome:
    """Drive a scenario to its end by one driver."""
    stage = staged(harness, scenario)
    assert stage.go_on()
    return read(stage)


def stopped(harness: Harness, scenario: Scenario, *stops: int, tell: Verb | None = None) -> Outcome | None:
    """Let one driver after another die before an effect, leave a word for the last one and let that go on; None when it ended before."""
    stage = staged(harness, scenario)
    if any(stage.go_on(stop) for stop in stops):
        harness.cleanup()
        return None
    if tell is Verb.PAUSE:
        stage.words.append(Word(Verb.RESUME))
    assert stage.go_on(tell=tell)
    return read(stage)


def with_faults(
    harness: Harness, scenario: Scenario, script: Mapping[int | str, Fault], **options: Any
) -> tuple[Outcome, bool]:
    """Drive a scenario over a faulty provider; say whether it met a fault."""
    stage = staged(harness, scenario, script=script, **options)
    assert stage.go_on()
    return read(stage), bool(stage.backend.seen)


def read(stage: Stage) -> Outcome:
    """Read how it came out, and remove the endpoint: hundreds of them are made."""
    harness, operation = stage.harness, stage.operation
    stage.watched.look(stage.spec.name)
    state, end = harness.backend.observe(stage.spec.name), operation.end()
    target = {"backend": harness.backend.name, "target": stage.spec.name}
    history = operation.journal.history(**target)
    assert operation.journal.verify_history(**target) == len(history)
    cursor = from_json(RolloutCursor, end.cursor) if operation.kind is Kind.ROLLOUT else None
    if cursor is not None:
        _check_counts(stage, cursor)
    # Devices answer at beats, so how long it takes depends on the moment at which a driver looks.
    virtual = isinstance(harness.clock, VirtualClock) and not harness.backend.capabilities.edge
    outcome = Outcome(
        end.phase,
        tuple(sorted(each.revision.id for each in state.revisions)) if state else None,
        state.traffic.live if state else {},
        state.traffic.copies if state else {},
        settled=state.settled if state else True,
        tables=tuple(stage.watched.seen),
        history=tuple(line.entry.what for line in history),
        counted=_counted(cursor) if virtual and cursor else None,
        beats=stage.beat if virtual else 0,
    )
    operation.journal.close()
    harness.cleanup()
    return outcome


def _counted(cursor: RolloutCursor) -> Any:
    """Give what the gates counted, without the moments."""
    evidence = cursor.evidence
    return to_json((evidence.strata, evidence.assigned, evidence.series, evidence.here))


def _check_counts(stage: Stage, cursor: RolloutCursor) -> None:
    """Hold what was counted against what there was: nothing is counted twice."""
    backend, now = stage.harness.backend, stage.harness.clock.now() + stage.harness.beat
    if not (cursor.evidence.strata and backend.capabilities.meters):
        return
    meters: Any = backend
    there = meters.window(stage.spec.name, cursor.revision.id, stage.began - 2 * stage.harness.beat, now)
    for name, strata in cursor.evidence.strata.items():
        seen = sum(stratum.new_seen for stratum in strata)
        assert seen <= there.requests, f"{name}: {seen} were counted of {there.requests} that there were"
