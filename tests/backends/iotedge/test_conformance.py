"""The IoT Edge backend passes the suites for devices, on a simulated hub."""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EdgeConformance, EdgeRolloutConformance

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


class TestRollouts(EdgeRolloutConformance):
    """Every 37th effect, every 74th call, one bad day."""

    seeds = 1

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=37, fault_sample=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestRolloutsClosely(EdgeRolloutConformance):
    """Every 7th effect, every 14th call."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=7, fault_sample=2)
