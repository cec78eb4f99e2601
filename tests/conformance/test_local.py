"""The engine's operations on the local backend, with real processes: straight, with faults, and with drivers that die.

A step takes real time here, so scenarios, crashes and faults are sampled: the reference backend takes every one. The slow tier has every
scenario and looks closer. The rules for single calls are run on this backend in tests/backends/local/test_conformance.py.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.engine.drivers import RealClock
from modeldeploy.engine.record import Verb
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.scenarios import SCENARIOS
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.serving import Payload, Revision

SAMPLED = ("canary_fails", "shadow_disagrees", "roll_back_cold", "delete")
BEAT_S = 0.25


class Adds:
    """Answers ``x + step``, and fails for 7 if it is broken."""

    def __init__(self, step, *, broken=False):
        self.step = step
        self.broken = broken

    def predict(self, x):
        if self.broken and 7.0 in np.asarray(x, dtype=float):
            message = "broken"
            raise RuntimeError(message)
        return np.asarray(x, dtype=float) + self.step


@pytest.fixture(scope="module")
def home():
    # Short, for the sockets in it.
    path = Path(tempfile.mkdtemp(prefix="mdc"))
    yield path
    backend = LocalBackend(path)
    backend.shutdown()
    backend.close()
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def models(home):
    """Package three models and a broken one, once."""
    store = Store(home / "store")
    made = [Adds(1.0), Adds(2.0), Adds(3.0), Adds(4.0, broken=True)]
    bundles = [
        package(each, name="adds", version=f"1.{number}.0", example=np.array([1.0, 2.0]), store=store)
        for number, each in enumerate(made)
    ]
    return [bundle.model_version() for bundle in bundles]


@pytest.fixture
def harness(home, models, tmp_path):
    revisions = [Revision.of(model) for model in models]
    tensor = {"name": "input", "shape": [1], "datatype": "FP64", "data": [7.0]}
    table = tmp_path / "in.csv"
    table.write_text("input\n" + "\n".join(str(float(number)) for number in range(200)) + "\n")
    numbers = itertools.count(1)
    harness = Harness(
        LocalBackend(home),
        tuple(revisions[:3]),
        payload=Payload(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"}),
        broken=revisions[3],
        clock=RealClock(),
        beat=BEAT_S,
        reopen=lambda: LocalBackend(home),
        job=lambda: BatchSpec(
            f"job-{tmp_path.name[-12:].strip('-_[]').lower().replace('_', '-')}-{next(numbers)}",
            models[0],
            (str(table),),
            str(tmp_path / f"out-{next(numbers)}.csv"),
            workers=1,
        ),
        sample=31,
        fault_sample=6,
    )
    yield harness
    harness.cleanup()
    harness.backend.close()


class TestRollouts(RolloutConformance):
    """A scenario of each kind: every 31st effect, every 186th call, one bad day."""

    scenarios = tuple(each for each in SCENARIOS if each.name in SAMPLED)
    spoken = (Verb.ABORT, Verb.PROMOTE)
    seeds = 1


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestEveryRollout(RolloutConformance):
    """All scenarios: every 23rd effect, every 46th call."""

    seeds = 1

    @pytest.fixture
    def harness(self, harness):
        harness.sample, harness.fault_sample = 23, 2
        return harness


class TestJobs(BatchConformance):
    """A file of two hundred rows."""
