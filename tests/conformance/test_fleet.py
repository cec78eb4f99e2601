"""The fleet backend passes the suites for devices, with stand-ins that follow its signed desired states."""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EdgeConformance, EdgeRolloutConformance


class TestFleet(EdgeConformance):
    @pytest.fixture
    def harness(self, fleet_of):
        return fleet_of()


class TestRollouts(EdgeRolloutConformance):
    """Every 23rd effect, every 46th call, one bad day."""

    seeds = 1

    @pytest.fixture
    def harness(self, fleet_of):
        return fleet_of(sample=23, fault_sample=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestRolloutsClosely(EdgeRolloutConformance):
    """Stopped before every effect, a fault at every call."""

    @pytest.fixture
    def harness(self, fleet_of):
        return fleet_of()
