"""Whatever users, drivers, providers and other people do, in whatever order: what always holds of rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from modeldeploy.engine import gates as gates_module
from modeldeploy.engine.looking import Looker
from modeldeploy.engine.record import Verb
from modeldeploy.engine.rollout import RolloutFlow
from modeldeploy.engine.rollout_base import RolloutBase
from modeldeploy.engine.rollout_walk import RolloutWalk
from modeldeploy.values.gate import Verdict
from modeldeploy.values.rollout import RolloutPolicy

TIMES = {"soak": 30.0, "interval": 10.0, "max_soak": 90.0, "blind_limit": 60.0}
CHANGES: list[tuple[str, Any]] = [
    *(("errors", rate) for rate in (0.0, 0.001, 0.05, 0.5)),
    *(("slow", seconds) for seconds in (0.01, 0.013, 0.2)),
    *(("think", answer) for answer in (True, False, None, Verdict.BLIND)),
    *(("rate", rate) for rate in (0.0, 1.0, 200.0, 200.0)),
    ("doom", ""),
    ("gap", True),
    ("refuses", 2),
    ("loses", 2),
    ("breaks", 1),
    *(("clear", None),) * 4,
]
_answer: list[Any] = [True]


def by_hand(look: Any) -> Any:
    """Answer what the town's user thinks just now."""
    return _answer[0]


RATES = ["error_rate <= 1%", "error_rate <= 10%", "error_rate <= 1.5x", "p95_latency <= 1.2x", "p99_latency <= 80ms"]
live_gates = st.lists(st.sampled_from([*RATES, "latency <= 1x", by_hand]), max_size=2, unique=True)
sampled = st.sampled_from([1, 50])
words = st.fixed_dictionaries(
    {
        "min_sample": sampled,
        "on_inconclusive": st.sampled_from(["hold", "promote", "rollback"]),
        "on_failure": st.sampled_from(["rollback", "hold"]),
    }
)
baking = {"interval": 10.0, "blind_limit": 60.0}


def walking(make: Callable[..., RolloutPolicy], first: st.SearchStrategy[Any]) -> st.SearchStrategy[RolloutPolicy]:
    return st.builds(
        lambda steps, gates, options: make(steps, gates=gates, **options, **TIMES), first, live_gates, words
    )


def linear(step: int, *, soak: float, **options: Any) -> RolloutPolicy:
    return RolloutPolicy.linear(step, every=soak, **options)


def shadow(then: tuple[int, ...], *, gates: list[Any], **options: Any) -> RolloutPolicy:
    return RolloutPolicy.shadow(37, then=then, gates=["disagreement <= 5%", *gates], **options)


def ab_test(split: int, *, max_soak: float, **options: Any) -> RolloutPolicy:
    return RolloutPolicy.ab_test(split, key="header:user", until=max_soak, **options)


canaries = walking(RolloutPolicy.canary, st.sampled_from([(10, 50), (50,), (5, 25, 50)]))
policies = st.one_of(
    st.just(RolloutPolicy.all_at_once()),
    canaries,
    canaries,
    walking(linear, st.sampled_from([25, 50])),
    walking(shadow, st.sampled_from([(), (50,)])),
    walking(ab_test, st.just(50)),
    st.builds(
        lambda gates, sample: RolloutPolicy.blue_green(bake=60, gates=gates, min_sample=sample, **baking),
        live_gates,
        sampled,
    ),
)
which = st.integers(0, 3)


class Rollouts(RuleBasedStateMachine):
    """Rules are what may happen; ``Town`` holds each effect against what must be."""

    build: ClassVar[Any] = None

    @initialize(
        looks=st.integers(0, 2),
        meters=st.sampled_from([(True, 0.0), (True, 1.0), (False, 0.0), (False, 60.0)]),
        sticky=st.booleans(),
        serves=st.booleans(),
    )
    def found(self, *, looks: int, meters: tuple[bool, float], sticky: bool, serves: bool) -> None:
        """Most towns begin with an endpoint that serves."""
        _answer[0] = True
        self.town = self.build(looks=looks, by_share=meters[0], resolution=meters[1], sticky=sticky)
        if serves or meters[0]:
            self.town.roll_out(0, RolloutPolicy.all_at_once(), 1)
            self.town.drive(100)
            assert self.town.reign == self.town.pool[0].id

    # What users do

    @rule(number=which, policy=policies, keep=st.integers(0, 2))
    def roll_out(self, number: int, policy: RolloutPolicy, keep: int) -> None:
        self.town.roll_out(number, policy, keep)
        self.town.drive(60)

    @rule(to=st.one_of(st.none(), which))
    def roll_back(self, to: int | None) -> None:
        self.town.roll_back(None if to is None else self.town.pool[to].id)
        self.town.drive(5)

    @precondition(lambda self: self.town.number > 6)
    @rule()
    def delete(self) -> None:
        self.town.delete()

    @rule(verb=st.sampled_from([Verb.PAUSE, Verb.RESUME, Verb.RESUME, Verb.SKIP, Verb.PROMOTE, Verb.ABORT]))
    def tell(self, verb: Verb) -> None:
        self.town.tell(verb)
        self.town.drive(5)

    @rule(new=st.sampled_from([0.2, 0.9]), old=st.sampled_from([0.2, 0.9]))
    def score(self, new: float, old: float) -> None:
        self.town.score(new, old, 150)

    # What drivers do

    @rule(effects=st.sampled_from([1, 5, 40, 150, 400]))
    def drive(self, effects: int) -> None:
        self.town.drive(effects)

    @rule(effects=st.integers(0, 12), how=st.sampled_from(["kill", "kill", "freeze", "thaw"]))
    def die(self, effects: int, how: str) -> None:
        self.town.drive(effects)
        getattr(self.town, how)()

    @rule(seconds=st.sampled_from([15.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.town.clock.sleep(seconds)

    # What the world does

    @rule(number=which, change=st.sampled_from(CHANGES))
    def turn(self, number: int, change: tuple[str, Any]) -> None:
        """Let a revision, the users or the weather become otherwise; ``think`` is a change of the mind behind the gate by hand."""
        what, value = change
        town, name = self.town, self.town.pool[number].id
        if what == "errors":
            town.errors[name] = value
        elif what == "slow":
            town.slow[name] = value
        elif what == "think":
            _answer[0] = value
        elif what == "doom":
            town.backend.doom(name, "no memory left")
        elif what == "rate":
            town.rate = value
        elif value is None:
            town.weather.clear()
        else:
            setattr(town.weather, what, value)

    @rule(rate=st.sampled_from([0.0, 0.05, 0.5]), effects=st.sampled_from([0, 100, 300]))
    def spoil(self, rate: float, effects: int) -> None:
        self.town.spoil(rate)
        self.town.drive(effects)

    @rule(share=st.sampled_from([0, 10, 30, 100]), data=st.data())
    def interfere(self, share: int, data: Any) -> None:
        state = self.town.backend.observe("iris")
        ready = [each.revision.id for each in state.revisions if each.ready] if state else []
        if not ready or not state.traffic.live:
            return
        one, two = data.draw(st.sampled_from(ready)), data.draw(st.sampled_from(ready))
        self.town.interfere({one: 100} if one == two else {one: share, two: 100 - share})

    # What always holds

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "town"):
            return
        assert len(self.town.journal.unfinished(target="iris")) <= 1
        self.town.journal.verify_history(backend="memory", target="iris")
        if (state := self.town.backend.observe("iris")) is not None:
            assert sum(state.traffic.live.values()) == (100 if state.traffic.live else 0)
            assert set(state.traffic.live) | set(state.traffic.copies) <= set(self.town.there)

    def teardown(self) -> None:
        if hasattr(self, "town"):
            try:
                self.town.settle()
            finally:
                self.town.journal.close()


def walk(town: Any, *, examples: int, steps: int) -> None:
    """Run the machine in the towns of ``town``, always the same way."""
    machine = type("Machine", (Rollouts,), {"build": staticmethod(town)})
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=options)


def test_what_must_hold_of_rollouts_holds_whatever_happens(town):
    walk(town, examples=150, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_holds_in_long_and_many_lives(town):
    walk(town, examples=2_000, steps=60)


# ---------------------------------------------------------------- what the machine would find


def promotes_in_doubt(monkeypatch):
    """Silence passes for consent."""
    overall = gates_module.overall
    told = {Verdict.INCONCLUSIVE: Verdict.PASS}
    monkeypatch.setattr(gates_module, "overall", lambda results: told.get(overall(results), overall(results)))


def forgets_what_was_counted(monkeypatch):
    """The same requests are counted at every look of a step."""
    counted = Looker._counted

    def again(self, at, since):
        self._cursor = attrs.evolve(self._cursor, evidence=attrs.evolve(self._cursor.evidence, upto=0.0))
        return (yield from counted(self, at, since))

    monkeypatch.setattr(Looker, "_counted", again)


def overwrites_what_others_decided(monkeypatch):
    monkeypatch.setattr(RolloutWalk, "_refuse_other_table", lambda self, state: None)


def forgets_a_failure(monkeypatch):
    """What failed goes out again, once somebody takes the operation up."""
    save = RolloutBase._save

    def forget(self, **changes):
        if changes.get("verdict") is Verdict.FAIL and changes.get("stage") == "back":
            self.cursor = attrs.evolve(self.cursor, verdict=Verdict.FAIL)
            changes = {"step": self.cursor.step + 1, "since": None, "verdict": Verdict.FAIL}
        yield from save(self, **changes)

    monkeypatch.setattr(RolloutBase, "_save", forget)


def leaves_the_copies_on(monkeypatch):
    def stay(self):
        yield from ()
        return self.cursor.baseline

    monkeypatch.setattr(RolloutFlow, "_restore", stay)


FAULTS = (
    promotes_in_doubt,
    forgets_what_was_counted,
    overwrites_what_others_decided,
    forgets_a_failure,
    leaves_the_copies_on,
)


@pytest.mark.slow
@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(town, monkeypatch, plant):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        walk(town, examples=400, steps=40)
