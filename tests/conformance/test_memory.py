"""The reference backend passes its own suite, with every capability, with few, fast and slow."""

from __future__ import annotations

import pytest

from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.capability import Capabilities, Shadow


class TestEverything(ServingConformance):
    @pytest.fixture(params=[0, 1, 3])
    def harness(self, request, harness_of):
        return harness_of(steps=request.param)


class TestLittle(ServingConformance):
    """A provider that can only serve, one revision at a time."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(capabilities=Capabilities(serving=True))


class TestTwoWaySplit(ServingConformance):
    """A provider such as Azure ML: small shadows; and one that asks to be polled slowly."""

    @pytest.fixture
    def harness(self, harness_of):
        capabilities = Capabilities(serving=True, split=2, shadow=Shadow(max_percent=50), pinned_invoke=True)
        return harness_of(capabilities=capabilities, poll_after=5.0)


class TestJobs(BatchConformance):
    @pytest.fixture(params=[0, 3])
    def harness(self, request, harness_of):
        return harness_of(steps=request.param)


class TestNoJobs(BatchConformance):
    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(capabilities=Capabilities(serving=True))


class TestRollouts(RolloutConformance):
    """Stopped before every effect; a fault at every 13th call, one bad day."""

    seeds = 1

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(steps=2, fault_sample=13)


@pytest.mark.slow
class TestRolloutsClosely(RolloutConformance):
    """A fault at every call, too; at a provider that does everything at once, and at one that takes its time."""

    @pytest.fixture(params=[0, 2])
    def harness(self, request, harness_of):
        return harness_of(steps=request.param)


class TestRolloutsOfLittle(RolloutConformance):
    """A provider that can only serve, one revision at a time."""

    @pytest.fixture
    def harness(self, harness_of):
        return harness_of(capabilities=Capabilities(serving=True), sample=12)


class TestRolloutsOfTwo(RolloutConformance):
    """A provider such as Azure ML, without metrics of its own: what needs them is taken back. A few effects of each only."""

    @pytest.fixture
    def harness(self, harness_of):
        capabilities = Capabilities(serving=True, split=2, shadow=Shadow(max_percent=50), pinned_invoke=True)
        return harness_of(capabilities=capabilities, sample=40)
