"""The engine's operations on the local backend, with real processes: straight, with faults, and with drivers that die.

A step takes real time here, so crashes and faults are sampled: every 31st effect or call, where the reference backend takes every one.
The rules for single calls are run on this backend in tests/backends/local/test_conformance.py.
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
from modeldeploy.errors import PredictionError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.serving import Payload, Revision

SAMPLE = 31
EVERY_S = 0.002


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


class BusyClock:
    """Real time; while it passes, requests are sent to every endpoint that has the broken revision."""

    def __init__(self):
        self.harness = None
        self._real = RealClock()

    def now(self):
        return self._real.now()

    def sleep(self, seconds):
        until = self.now() + seconds
        busy = [name for name in self.harness.made if self._is_tried(name)]
        while busy and self.now() < until:
            for name in busy:
                self._ask(name)
            self._real.sleep(EVERY_S)
        self._real.sleep(max(0.0, until - self.now()))

    def _is_tried(self, name):
        state = self.harness.backend.observe(name)
        return state is not None and state.traffic.share(self.harness.broken.id) > 0

    def _ask(self, name):
        try:
            self.harness.backend.invoke(name, self.harness.payload, timeout=5.0)
        except PredictionError:
            return


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
    clock = BusyClock()
    table = tmp_path / "in.csv"
    table.write_text("input\n" + "\n".join(str(float(number)) for number in range(200)) + "\n")
    numbers = itertools.count(1)
    clock.harness = Harness(
        LocalBackend(home),
        tuple(revisions[:3]),
        payload=Payload(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"}),
        broken=revisions[3],
        clock=clock,
        reopen=lambda: LocalBackend(home),
        job=lambda: BatchSpec(
            f"job-{tmp_path.name[-12:].strip('-_[]').lower().replace('_', '-')}-{next(numbers)}",
            models[0],
            (str(table),),
            str(tmp_path / f"out-{next(numbers)}.csv"),
            workers=1,
        ),
        sample=SAMPLE,
    )
    yield clock.harness
    clock.harness.cleanup()
    clock.harness.backend.close()


class TestRollouts(RolloutConformance):
    """Sampled; see above."""


class TestJobs(BatchConformance):
    """A file of two hundred rows."""
