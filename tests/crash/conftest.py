"""An endpoint on this machine, and drivers that are killed at a chosen moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.backends.local import state
from modeldeploy.backends.local.paths import Paths
from modeldeploy.errors import PredictionError
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import Revision

CHILD = Path(__file__).with_name("child.py")
NAME = "adds"


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


class Ground:
    """One endpoint whose model gets a new version at each rollout; all processes are real."""

    def __init__(self, home):
        self.home = home
        self.number = 1
        self.endpoint = Endpoint.deploy(self.model(), NAME)

    def model(self, *, broken=False):
        """Package the next version."""
        version, self.number = f"1.{self.number}.0", self.number + 1
        return Model(Adds(float(self.number), broken=broken), name=NAME, version=version, example=np.array([1.0, 2.0]))

    def drive_until_killed(self, what, number, when, *gated):
        """Let a process roll the next version out; it kills itself ``when`` ("before" or "after") its ``number``-th ``what``."""
        model = self.model(broken=bool(gated))
        command = [sys.executable, str(CHILD), what, str(number), when, NAME, model.version, *gated]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done, model.version

    def resume(self, *, code=0):
        """Let a fresh process take up what is unfinished."""
        command = [sys.executable, "-m", "modeldeploy.cli", "drive"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr

    @contextlib.contextmanager
    def busy(self):
        """Let requests arrive that a broken model fails."""
        ended = threading.Event()

        def ask():
            while not ended.wait(0.002):
                with contextlib.suppress(PredictionError):
                    self.endpoint.predict(np.array([7.0]))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            ended.set()
            asking.join()

    @property
    def serial(self):
        """How often anything was changed on this machine so far; never less after a crash."""
        return state.load(Paths(self.home).state).serial

    def live(self):
        """Give the share of each version."""
        found = self.endpoint.state
        return {found.revision(name).revision.model.version: share for name, share in found.traffic.live.items()}

    def workers(self):
        """Name every worker's endpoint and revision, as the supervisor and the state have them."""
        running = sorted(self.endpoint._session.backend.processes()["workers"])
        wanted = sorted(f"{NAME}/{each.revision.id}" for each in self.endpoint.state.revisions)
        return running, wanted

    def litter(self):
        """Name what is half done on the disk: copies of bundles on their way, files on their way to their names."""
        staged = [path for folder in self.home.rglob("staging") for path in folder.iterdir()]
        return [str(path) for path in (*staged, *self.home.rglob(".state.json.*"))]


@pytest.fixture(scope="module")
def ground():
    # Short, for the sockets in it.
    home = Path(tempfile.mkdtemp(prefix="mdk"))
    before = os.environ["MODELDEPLOY_HOME"]
    os.environ["MODELDEPLOY_HOME"] = str(home)
    made = Ground(home)
    made.endpoint.rollout(made.model(), RolloutPolicy.all_at_once())
    yield made
    os.environ["MODELDEPLOY_HOME"] = str(home)
    made.endpoint.delete()
    made.endpoint._session.backend.shutdown()
    os.environ["MODELDEPLOY_HOME"] = before
    shutil.rmtree(home)


@pytest.fixture
def at_home(ground, monkeypatch):
    """Let every process of these tests use the ground's home."""
    monkeypatch.setenv("MODELDEPLOY_HOME", str(ground.home))


@pytest.fixture(scope="session")
def killed():
    """Give the exit code of a process that was killed."""
    return -signal.SIGKILL


@pytest.fixture(scope="session")
def revisions():
    """Give three revisions for a provider in memory, and one that is meant to be broken."""
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return tuple(
        Revision.of(ModelVersion("iris", f"1.{minor}.0", f"sha256:{minor:064x}", "memory:", "function", signature))
        for minor in range(4)
    )
