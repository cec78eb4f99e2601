"""Harnesses of the reference backend."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modeldeploy import Model
from modeldeploy.backends.fleet.backend import FleetBackend
from modeldeploy.backends.fleet.shelf import Within
from modeldeploy.backends.memory import MemoryBackend, respond
from modeldeploy.edge.keys import SigningKey
from modeldeploy.errors import PredictionError
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.devices import MemoryStore, StandIns
from modeldeploy.testing.edge import EdgeHarness
from modeldeploy.testing.harness import Harness
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import Payload, Revision


def revision(version: str) -> Revision:
    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("iris", version, digest, f"memory:{version}", "function", signature))


REVISIONS = tuple(revision(f"1.{minor}.0") for minor in range(4))


def _harness_of(
    backend_class: type[MemoryBackend] = MemoryBackend, *, sample: int = 1, fault_sample: int = 1, **options
) -> Harness:
    clock = FlowingClock()
    backend = backend_class(clock=clock.now, responder=_respond, **options)
    numbers = itertools.count(1)
    harness = Harness(
        backend,
        REVISIONS[:3],
        broken=REVISIONS[3],
        clock=clock,
        writes=lambda: len(backend.writes),
        job=lambda: BatchSpec(f"job-{next(numbers)}", REVISIONS[0].model, ("in.parquet",), "out.parquet"),
        sample=sample,
        fault_sample=fault_sample,
    )
    harness.send = lambda name, keys: _send(harness, name, keys)
    return harness


def _send(harness: Harness, name: str, keys: list[str]) -> None:
    """Count requests by the table, all of one revision at once; one by one where keys or copies count."""
    traffic = harness.backend.observe(name).traffic
    if traffic.key or traffic.copies:
        for key in keys:
            harness.request(name, key)
        return
    for revision, share in traffic.live.items():
        requests = len(keys) * share // 100
        errors = requests if revision == harness.broken.id else 0
        harness.backend.record(name, revision, requests=requests, errors=errors)


def _respond(endpoint: str, revision: str, payload: Payload) -> Payload:
    """Answer with the revision, unless it is the broken one."""
    if revision == REVISIONS[3].id:
        raise PredictionError("broken", status=500)
    return respond(endpoint, revision, payload)


@pytest.fixture(scope="session")
def harness_of():
    """Give ``harness_of(backend_class=MemoryBackend, **options)``; requests arrive there while time passes."""
    return _harness_of


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    """Give four revisions of models that a release can be made of."""
    home = tmp_path_factory.mktemp("models")
    x = np.arange(12.0).reshape(6, 2)
    models = [
        Model(LinearRegression().fit(x, step * x[:, 0]), name="line", version=f"1.{step}.0", example=x[:2], home=home)
        for step in range(4)
    ]
    return tuple(Revision.of(model.identity) for model in models)


@pytest.fixture
def fleet_of(packaged, tmp_path):
    """Give ``fleet_of(sample=)``: a fleet backend in memory with stand-ins for devices."""

    def make(*, sample=1, fault_sample=1):
        clock, key = FlowingClock(), SigningKey.generate()
        store = MemoryStore(clock.now)

        def backend():
            return FleetBackend(
                store, key=key, home=tmp_path, offline_after=2.5, settle=8, poll_after=0.5, clock=clock.now
            )

        devices = StandIns(lambda fleet: Within(store, fleet), key.public, packaged[3].id)
        return EdgeHarness(
            backend(),
            packaged[:3],
            broken=packaged[3],
            clock=clock,
            writes=lambda: store.writes,
            reopen=backend,
            sample=sample,
            fault_sample=fault_sample,
            act=devices.act,
            behave=devices.behave,
        )

    return make
