"""The Greengrass backend passes the suites for devices, on a simulated account."""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EDGE_SCENARIOS, EdgeConformance, EdgeRolloutConformance

QUICK = ("rings", "rings_halt", "rings_look_again")


class TestGreengrass(EdgeConformance):
    @pytest.fixture
    def harness(self, harness_of):
        """Nobody lets time pass between two acts of the devices here, so a device may be counted as offline soon."""
        made = harness_of(speed=1_200.0)
        yield made
        made.cleanup()


class TestRollouts(EdgeRolloutConformance):
    """Rings that pass, halt and are looked at again; with faults and crashes at every 211th effect."""

    scenarios = tuple(each for each in EDGE_SCENARIOS if each.name in QUICK)
    spoken = ()
    seeds = 0

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=211, fault_sample=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestRolloutsClosely(EdgeRolloutConformance):
    """All of them: every 31st effect, every 62nd call."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=31, fault_sample=2)
