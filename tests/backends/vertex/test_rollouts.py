"""The engine's operations on the rehearsal: straight, with faults, and with drivers that die.

A step takes real time here: the containers are processes, and metrics are kept by the second. So the fast tier walks through the scenarios
that wait for no metrics; the slow tier has one of each kind with faults and crashes, sampled. The reference backend takes every one.
"""

from __future__ import annotations

import pytest

from modeldeploy.engine.record import Verb
from modeldeploy.testing.rollouts import RolloutConformance, straight
from modeldeploy.testing.scenarios import SCENARIOS
from modeldeploy.values.serving import WHOLE
from modeldeploy.values.ticket import Phase

FAST = ("deploy", "roll_back_cold")
SAMPLED = ("canary_fails", "canary_passes", "blue_green_fails", "roll_back_cold", "no_room", "delete")


def scenario(name: str):
    return next(each for each in SCENARIOS if each.name == name)


@pytest.mark.parametrize("name", ["canary_fails"])
def test_a_rollout_ends_as_it_must(harness, name):
    """Gates read Cloud Monitoring, in whole slots."""
    wanted = scenario(name)
    assert wanted.missing(harness) == []
    outcome = straight(harness, wanted)
    new = (harness.broken if "broken" in wanted.needs else harness.revisions[1]).id
    assert (outcome.phase, outcome.walk(new), outcome.copies) == (wanted.phase, wanted.walk, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shadow_errs"])
def test_what_it_cannot_do_is_taken_back_with_stable_as_it_was(harness, name):
    wanted = scenario(name)
    assert wanted.missing(harness) != []
    outcome = straight(harness, wanted)
    assert outcome.phase in {Phase.FAILED, Phase.CANCELLED}
    assert outcome.live == {harness.revisions[0].id: WHOLE}


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestQuickOnes(RolloutConformance):
    """No metrics to wait for: every 17th effect, every 34th call, one bad day."""

    scenarios = tuple(each for each in SCENARIOS if each.name in FAST)
    spoken = ()
    seeds = 1

    @pytest.fixture
    def harness(self, harness):
        harness.sample, harness.fault_sample = 17, 2
        return harness


@pytest.mark.slow
@pytest.mark.timeout(1_200)
class TestSampled(RolloutConformance):
    """One of each kind: every 41st effect, every 82nd call, one bad day, and a user who aborts."""

    scenarios = tuple(each for each in SCENARIOS if each.name in SAMPLED)
    spoken = (Verb.ABORT,)
    seeds = 1

    @pytest.fixture
    def harness(self, harness):
        harness.sample, harness.fault_sample = 41, 2
        return harness
