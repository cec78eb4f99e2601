"""The IoT Edge backend passes the suites for devices, on a simulated hub."""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EDGE_SCENARIOS, EdgeConformance, EdgeRolloutConformance

_KEEPS = "a device keeps the old revision when the new one fails: the IoT Edge runtime has one container of a module and no way back by itself"


class TestIoTEdge(EdgeConformance):
    @pytest.mark.xfail(reason=_KEEPS, strict=True)
    def test_a_device_that_refuses_a_revision_has_answered_and_keeps_the_old_one(self, harness):
        super().test_a_device_that_refuses_a_revision_has_answered_and_keeps_the_old_one(harness)


class TestLayered(TestIoTEdge):
    """The same by layers over a base deployment that the devices have from elsewhere."""

    @pytest.fixture
    def harness(self, harness_of, based):
        return based(harness_of(layered=True))


QUICK = ("deploy", "rings", "rings_halt", "rings_look_again", "roll_back")


class TestRollouts(EdgeRolloutConformance):
    """One of each kind, straight; with faults and crashes at every 97th effect and every 194th call."""

    scenarios = tuple(each for each in EDGE_SCENARIOS if each.name in QUICK)
    spoken = ()
    seeds = 1

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=97, fault_sample=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestRolloutsClosely(EdgeRolloutConformance):
    """All of them: every 11th effect, every 22nd call."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=11, fault_sample=2)
