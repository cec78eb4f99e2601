"""The rollout suite has teeth: each fault that is put into a provider or into the engine is caught, by the scenario that is there for it."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.engine import rollout_walk, sequential
from modeldeploy.engine.looking import Looker
from modeldeploy.engine.rollout import RolloutFlow
from modeldeploy.engine.rollout_base import RolloutBase
from modeldeploy.engine.rollout_walk import RolloutWalk
from modeldeploy.errors import ConflictError
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.scenarios import SCENARIOS

BY_NAME = {each.name: each for each in SCENARIOS}
DIES = RolloutConformance.test_a_driver_that_dies_anywhere_does_no_harm
FAULTY = RolloutConformance.test_one_fault_at_any_call_changes_nothing_in_the_end
ENDS = RolloutConformance.test_it_ends_as_it_must


class LosesFlightsOnResume(MemoryBackend):
    """A table in flight is forgotten when another driver asks for it again."""

    def _aim(self, endpoint, wanted, expect):
        if endpoint.pending is not None and endpoint.pending.same_as(wanted):
            endpoint.pending = None
            return
        super()._aim(endpoint, wanted, expect)


class RefusesItsOwnWrite(MemoryBackend):
    """A repeated start with ``expect`` meets the version that its own first write made."""

    def _aim(self, endpoint, wanted, expect):
        if expect is not None and expect != endpoint.version:
            raise ConflictError("stale")
        super()._aim(endpoint, wanted, expect)


# What may be wrong with an engine


def acts_before_it_saves_its_verdict(patch):
    """The traffic goes back, and only then is it written down why; and what a look said is not heeded afterwards."""

    def leave(self, reason, results, verdict):
        yield from self._observe()
        yield from self._restore()
        yield from self._save(stage=rollout_walk.Stage.BACK, verdict=verdict, results=results, reason=reason)

    patch.setattr(RolloutWalk, "_leave", leave)
    patch.setattr(RolloutWalk, "_condemned", property(lambda _self: False))


def counts_an_interval_again_after_resuming(patch):
    """A fresh driver reads the metrics of the whole step, as if nothing had been counted."""
    born, look = RolloutBase.__init__, Looker.look
    fresh = []

    def begin(self, backend, cursor):
        born(self, backend, cursor)
        fresh[:] = [True]

    def look_again(self, at, since):
        if fresh and fresh.pop():
            self._cursor = attrs.evolve(self._cursor, evidence=attrs.evolve(self._cursor.evidence, upto=0.0))
        return (yield from look(self, at, since))

    patch.setattr(RolloutBase, "__init__", begin)
    patch.setattr(Looker, "look", look_again)


def counts_an_interval_at_every_look_again(patch):
    """Nobody remembers what was counted already, so every driver counts too much, the undisturbed one too."""
    look = Looker.look

    def look_again(self, at, since):
        self._cursor = attrs.evolve(self._cursor, evidence=attrs.evolve(self._cursor.evidence, upto=0.0))
        return (yield from look(self, at, since))

    patch.setattr(Looker, "look", look_again)


def forgets_since_when_it_is_blind(patch):
    """A fresh driver begins to wait for the metrics anew."""
    born = RolloutBase.__init__

    def begin(self, backend, cursor):
        born(self, backend, attrs.evolve(cursor, evidence=attrs.evolve(cursor.evidence, blind=None)))

    patch.setattr(RolloutBase, "__init__", begin)


def soaks_anew_after_resuming(patch):
    """A fresh driver forgets when the step began."""
    born = RolloutBase.__init__

    def begin(self, backend, cursor):
        born(self, backend, attrs.evolve(cursor, since=None))

    patch.setattr(RolloutBase, "__init__", begin)


def ignores_copies_when_going_back(patch):
    """The old table seems to hold as soon as the shares are the old ones."""
    patch.setattr(RolloutFlow, "_is_back", lambda _self, state, baseline: state.traffic.live == baseline.live)


def goes_back_without_looking_for_flights(patch):
    """What is seen while a table is in flight is taken for what holds."""
    patch.setattr(RolloutFlow, "_is_back", lambda _self, state, baseline: state.traffic.same_as(baseline))


def overwrites_what_others_decided(patch):
    """No table is too strange to go on from."""
    patch.setattr(RolloutWalk, "_refuse_other_table", lambda _self, _state: None)


def promotes_without_evidence(patch):
    """A gate that knows nothing counts as passed."""
    overall = rollout_walk.gates.overall

    def kind(results):
        verdict = overall(results)
        return rollout_walk.Verdict.PASS if verdict is rollout_walk.Verdict.INCONCLUSIVE else verdict

    patch.setattr(rollout_walk.gates, "overall", kind)


def believes_the_split(patch):
    """Nobody asks whether the provider honours the weights."""
    patch.setattr(sequential, "ratio_broken", lambda _evidence: None)


# Fault, where it shows, in which test.
ENGINES = [
    (acts_before_it_saves_its_verdict, "canary_fails", DIES),
    (counts_an_interval_again_after_resuming, "canary_passes", DIES),
    (counts_an_interval_at_every_look_again, "canary_passes", ENDS),
    (forgets_since_when_it_is_blind, "blind_goes_back", DIES),
    (soaks_anew_after_resuming, "linear", DIES),
    (ignores_copies_when_going_back, "shadow_disagrees", ENDS),
    (overwrites_what_others_decided, "meddled_with", ENDS),
    (promotes_without_evidence, "inconclusive_goes_back", ENDS),
    (believes_the_split, "ratio_broken_holds", ENDS),
]
PROVIDERS = [(LosesFlightsOnResume, "canary", DIES), (RefusesItsOwnWrite, "canary", FAULTY)]


@pytest.mark.parametrize(("fault", "name", "test"), ENGINES, ids=[fault.__name__ for fault, *_ in ENGINES])
def test_a_fault_of_the_engine_is_caught(fault, name, test, harness_of, monkeypatch):
    test(RolloutConformance(), harness_of(), BY_NAME[name])
    fault(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(RolloutConformance(), harness_of(), BY_NAME[name])


@pytest.mark.parametrize(("fault", "name", "test"), PROVIDERS, ids=[fault.__name__ for fault, *_ in PROVIDERS])
def test_a_fault_of_a_provider_is_caught(fault, name, test, harness_of):
    with pytest.raises((AssertionError, ConflictError)):
        test(RolloutConformance(), harness_of(fault), BY_NAME[name])
