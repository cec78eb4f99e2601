"""The Greengrass backend passes the suites for devices, on a simulated account."""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EDGE_SCENARIOS, EdgeConformance, EdgeRolloutConformance

QUICK = ("deploy", "rings", "rings_halt", "rings_go_back", "roll_back", "delete")


class TestGreengrass(EdgeConformance):
    pass


class TestRollouts(EdgeRolloutConformance):
    """One of each kind: every 61st effect, every 122nd call, one bad day."""

    scenarios = tuple(each for each in EDGE_SCENARIOS if each.name in QUICK)
    seeds = 1

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=61, fault_sample=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestRolloutsClosely(EdgeRolloutConformance):
    """All of them: every 17th effect, every 34th call."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=17, fault_sample=2)
