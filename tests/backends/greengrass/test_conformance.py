"""The Greengrass backend passes the suites for devices, on a simulated account.

Each look at a device is two signed requests here, and moto answers those about groups, so the whole of the suites is for the slow tier.
"""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EDGE_SCENARIOS, EdgeConformance, EdgeRolloutConformance
from modeldeploy.testing.rollouts import straight


@pytest.mark.parametrize("name", ["rings_halt", pytest.param("rings_look_again", marks=pytest.mark.slow)])
def test_a_rollout_ends_as_it_must(harness_of, name):
    harness = harness_of()
    wanted = next(each for each in EDGE_SCENARIOS if each.name == name)
    assert wanted.missing(harness) == []
    outcome = straight(harness, wanted)
    assert (outcome.phase, outcome.walk(harness.broken.id)) == (wanted.phase, wanted.walk)
    harness.cleanup()


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestGreengrass(EdgeConformance):
    @pytest.fixture
    def harness(self, harness_of):
        """Nobody lets time pass between two acts of the devices here, so a device may be counted as offline soon."""
        made = harness_of(speed=1_200.0)
        yield made
        made.cleanup()


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestRollouts(EdgeRolloutConformance):
    """All of them: every 61st effect, every 122nd call."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=61, fault_sample=2)
