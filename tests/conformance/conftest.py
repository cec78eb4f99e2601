"""Harnesses of the reference backend."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.harness import Harness
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import Revision


def revision(version: str) -> Revision:
    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("iris", version, digest, f"memory:{version}", "function", signature))


REVISIONS = tuple(revision(f"1.{minor}.0") for minor in range(4))


def _harness_of(backend_class: type[MemoryBackend] = MemoryBackend, **options) -> Harness:
    clock = FlowingClock()
    backend = backend_class(clock=clock.now, **options)
    numbers = itertools.count(1)
    harness = Harness(
        backend,
        REVISIONS[:3],
        broken=REVISIONS[3],
        clock=clock,
        writes=lambda: len(backend.writes),
        job=lambda: BatchSpec(f"job-{next(numbers)}", REVISIONS[0].model, ("in.parquet",), "out.parquet"),
    )
    clock.flow = lambda seconds: _flow(harness, seconds)
    return harness


def _flow(harness: Harness, seconds: float) -> None:
    """Let a hundred requests arrive each second where the broken revision is, by the table; its own fail."""
    for name in harness.backend.endpoints():
        state = harness.backend.observe(name)
        if state.revision(harness.broken.id) is None:
            continue
        for revision, share in state.traffic.live.items():
            requests = round(share * seconds)
            errors = requests if revision == harness.broken.id else 0
            harness.backend.record(name, revision, requests=requests, errors=errors)


@pytest.fixture(scope="session")
def harness_of():
    """Give ``harness_of(backend_class=MemoryBackend, **options)``; requests arrive there while time passes."""
    return _harness_of
