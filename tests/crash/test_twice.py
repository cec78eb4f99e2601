"""Drivers that die twice: the second one in the midst of making good what the first one left."""

from __future__ import annotations

import pytest

from modeldeploy.backends.memory import MemoryBackend, respond
from modeldeploy.engine.record import Verb
from modeldeploy.errors import PredictionError
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollouts import stopped, straight
from modeldeploy.testing.scenarios import SCENARIOS

BY_NAME = {each.name: each for each in SCENARIOS}
# All pairs of these; every third effect of both drivers of the others.
CLOSELY = ("canary", "provider_refuses")
COARSELY = (
    "canary_passes",
    "canary_fails",
    "blind_goes_back",
    "shadow_disagrees",
    "inconclusive_holds",
    "meddled_with",
)
MOST = 1_000


@pytest.fixture
def harness(revisions):
    clock = FlowingClock()

    def answer(endpoint, revision, payload):
        if revision == revisions[3].id:
            message = "broken"
            raise PredictionError(message)
        return respond(endpoint, revision, payload)

    backend = MemoryBackend(clock=clock.now, steps=1, responder=answer)
    return Harness(backend, revisions[:3], broken=revisions[3], clock=clock)


def pairs(harness, scenario, stride, **options):
    """Give the outcome of every pair of deaths, with the pair."""
    for first in range(0, MOST, stride):
        if stopped(harness, scenario, first) is None:
            return
        for second in range(0, MOST, stride):
            outcome = stopped(harness, scenario, first, second, **options)
            if outcome is None:
                break
            yield (first, second), outcome


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "stride"), [*((each, 1) for each in CLOSELY), *((each, 3) for each in COARSELY)])
def test_two_drivers_that_die_do_no_more_harm_than_one(harness, name, stride):
    scenario = BY_NAME[name]
    plain, seen = straight(harness, scenario), 0
    for pair, outcome in pairs(harness, scenario, stride):
        assert outcome == plain, f"{name}: dead before effects {pair}"
        seen += 1
    assert seen > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_abort_after_two_deaths_ends_at_one_table_or_the_other(harness):
    first, second = (revision.id for revision in harness.revisions[:2])
    for pair, outcome in pairs(harness, BY_NAME["canary"], 3, tell=Verb.ABORT):
        assert outcome.live == {second if outcome.phase.value == "succeeded" else first: 100}, pair
        assert outcome.settled
        assert not outcome.copies


def test_two_deaths_of_a_canary_that_fails(harness):
    """A few of the pairs, for the fast tier: every eleventh effect."""
    plain = straight(harness, BY_NAME["canary_fails"])
    outcomes = [outcome for _pair, outcome in pairs(harness, BY_NAME["canary_fails"], 11)]
    assert len(outcomes) > 5
    assert all(outcome == plain for outcome in outcomes)
