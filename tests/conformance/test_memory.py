"""The reference backend passes its own suite, with every capability, with few, fast and slow."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.capability import Capabilities, Shadow
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import Revision


def revision(version: str) -> Revision:
    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("iris", version, digest, f"memory:{version}", "function", signature))


REVISIONS = tuple(revision(f"1.{minor}.0") for minor in range(4))


def harness_of(backend_class: type[MemoryBackend] = MemoryBackend, **options) -> Harness:
    clock = FlowingClock()
    backend = backend_class(clock=clock.now, **options)
    numbers = itertools.count(1)
    return Harness(
        backend,
        REVISIONS[:3],
        broken=REVISIONS[3],
        clock=clock,
        writes=lambda: len(backend.writes),
        job=lambda: BatchSpec(f"job-{next(numbers)}", REVISIONS[0].model, ("in.parquet",), "out.parquet"),
    )


def flowing(harness: Harness) -> Harness:
    """Let requests arrive while time passes, a hundred each second, by the table; those of the broken revision fail."""

    def flow(seconds: float) -> None:
        for name in harness.backend.endpoints():
            state = harness.backend.observe(name)
            for revision, share in state.traffic.live.items():
                requests = round(share * seconds)
                broken = revision == harness.broken.id
                harness.backend.record(name, revision, requests=requests, errors=requests if broken else 0)

    harness.clock.flow = flow
    return harness


class TestEverything(ServingConformance):
    @pytest.fixture(params=[0, 1, 3])
    def harness(self, request):
        return harness_of(steps=request.param)


class TestLittle(ServingConformance):
    """A provider that can only serve, one revision at a time."""

    @pytest.fixture
    def harness(self):
        return harness_of(capabilities=Capabilities(serving=True))


class TestTwoWaySplit(ServingConformance):
    """A provider such as Azure ML: small shadows; and one that asks to be polled slowly."""

    @pytest.fixture
    def harness(self):
        capabilities = Capabilities(serving=True, split=2, shadow=Shadow(max_percent=50), pinned_invoke=True)
        return harness_of(capabilities=capabilities, poll_after=5.0)


class TestJobs(BatchConformance):
    @pytest.fixture(params=[0, 3])
    def harness(self, request):
        return harness_of(steps=request.param)


class TestNoJobs(BatchConformance):
    @pytest.fixture
    def harness(self):
        return harness_of(capabilities=Capabilities(serving=True))


class TestRollouts(RolloutConformance):
    @pytest.fixture(params=[0, 2])
    def harness(self, request):
        return flowing(harness_of(steps=request.param))


class TestRolloutsOfLittle(RolloutConformance):
    @pytest.fixture
    def harness(self):
        return harness_of(capabilities=Capabilities(serving=True))
