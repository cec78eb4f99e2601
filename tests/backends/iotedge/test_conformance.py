"""The IoT Edge backend passes the suites for devices, on a simulated hub."""

from __future__ import annotations

import pytest

from modeldeploy.testing.edge import EDGE_SCENARIOS, EdgeConformance, EdgeRolloutConformance
from modeldeploy.testing.rollouts import straight

_KEEPS = "a device keeps the old revision when the new one fails: the IoT Edge runtime has one container of a module and no way back by itself"


class TestIoTEdge(EdgeConformance):
    @pytest.mark.xfail(reason=_KEEPS, strict=True)
    def test_a_device_that_refuses_a_revision_has_answered_and_keeps_the_old_one(self, harness):
        super().test_a_device_that_refuses_a_revision_has_answered_and_keeps_the_old_one(harness)


@pytest.mark.slow
class TestLayered(TestIoTEdge):
    """The same by layers over a base deployment that the devices have from elsewhere."""

    @pytest.fixture
    def harness(self, harness_of, based):
        return based(harness_of(layered=True))


QUICK = ("rings", "rings_halt", "rings_look_again", "roll_back")


@pytest.mark.parametrize("name", QUICK)
def test_a_rollout_ends_as_it_must(harness, name):
    wanted = next(each for each in EDGE_SCENARIOS if each.name == name)
    assert wanted.missing(harness) == []
    outcome = straight(harness, wanted)
    new = harness.broken if "broken" in wanted.needs else harness.revisions[1]
    assert (outcome.phase, outcome.walk(new.id)) == (wanted.phase, wanted.walk)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestRollouts(EdgeRolloutConformance):
    """All of them: every 11th effect, every 22nd call."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(sample=11, fault_sample=2)
