"""A rehearsal with containers that start in a moment, models that are packaged once, and a harness over both."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeldeploy.backends.vertex.rehearsal import Rehearsal, start
from modeldeploy.engine.drivers import RealClock
from modeldeploy.errors import ModelDeployError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.simulate.vertex.world import Timings
from modeldeploy.testing.harness import Harness
from modeldeploy.values.serving import EndpointSpec, Payload, Revision
from modeldeploy.values.ticket import Phase, Ticket

STUB = str(Path(__file__).with_name("stub.py"))
KINDS = ("", "broken", "sick", "dies")
IMAGES = {f"stub-{kind}" if kind else "stub": (sys.executable, "-I", "-S", STUB, kind) for kind in KINDS}
SPEED = 1_000.0
QUICK = Timings(upload=2.6, endpoint=5.0, stage=6.0, undeploy=10.0, delete=5.0, job=20.0, finalize=5.0)
JSON = {"content-type": "application/json"}


class Adds:
    """Answers ``x + step``; most containers of these tests do not load it."""

    def __init__(self, step):
        self.step = step

    def predict(self, x):
        return np.asarray(x, dtype=float) + self.step


@pytest.fixture(scope="session", autouse=True)
def _no_account():
    """See to it that no test can meet an account of whoever runs it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("GOOGLE_", "CLOUDSDK_", "GCE_", "STORAGE_EMULATOR"))
    }
    for name in kept:
        del os.environ[name]
    yield
    os.environ.update(kept)


@pytest.fixture(scope="module")
def shelf():
    """Package three models, once."""
    home = Path(tempfile.mkdtemp(prefix="mdvx"))
    store = Store(home / "store")
    models = [
        package(Adds(float(step)), name="adds", version=f"1.{step}.0", example=np.array([1.0, 2.0]), store=store)
        for step in range(3)
    ]
    yield home, [bundle.model_version() for bundle in models]
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def rehearsal(shelf):
    made = start(speed=SPEED, image="stub", images=IMAGES, home=shelf[0], patience_s=60.0, timings=QUICK)
    # Versions stay registered, so the first deployment of a model writes more than every other one does.
    for model in shelf[1]:
        revision = Revision.of(model)
        register(made, revision)
    yield made
    made.close()


def carry(backend, ticket: Ticket, *, until: float = 30.0) -> Ticket:
    deadline = time.monotonic() + until
    while not ticket.phase.ended:
        assert time.monotonic() < deadline, ticket
        ticket = backend.advance(ticket)
        time.sleep(min(ticket.poll_after or 0.002, 0.05))
    return ticket


def register(backend, revision: Revision) -> None:
    """Bring a revision's version to the registry, and leave no endpoint behind."""
    ended = carry(backend, backend.put_revision(EndpointSpec("first"), revision))
    assert ended.phase is Phase.SUCCEEDED, ended.note
    carry(backend, backend.drop_endpoint("first"))


class Town:
    """What a test needs at hand: a backend, revisions, and somebody who carries tickets."""

    def __init__(self, backend: Rehearsal, models) -> None:
        self.backend = backend
        self.faults = backend.simulator.faults
        self.revisions = [Revision.of(model) for model in models]
        self.models = models
        self.made: list[str] = []

    def revision(self, kind: str = "", at: int = 2, **options: str) -> Revision:
        """Make a revision whose container is of some kind."""
        return Revision.of(self.models[at], options={"image": f"stub-{kind}" if kind else "stub", **options})

    def carry(self, ticket: Ticket, *, until: float = 30.0, on: Rehearsal | None = None) -> Ticket:
        return carry(on or self.backend, ticket, until=until)

    def succeed(self, ticket: Ticket, *, on: Rehearsal | None = None) -> Ticket:
        ended = self.carry(ticket, on=on)
        assert ended.phase is Phase.SUCCEEDED, ended.note
        return ended

    def deploy(self, name: str, *revisions: Revision, **options: str) -> EndpointSpec:
        spec = EndpointSpec(name, options)
        self.made.append(name)
        for revision in revisions:
            self.succeed(self.backend.put_revision(spec, revision))
        return spec

    def ask(self, name: str, body: bytes = b"{}"):
        return self.backend.invoke(name, Payload(body, JSON), timeout=10.0)

    def answered(self, name: str) -> str:
        return json.loads(self.ask(name).body)["revision"]

    def clear(self) -> None:
        self.faults.__init__()
        for name in self.made:
            self.carry(self.backend.drop_endpoint(name))
        self.made.clear()


@pytest.fixture
def town(rehearsal, shelf):
    made = Town(rehearsal, shelf[1])
    yield made
    made.clear()


@pytest.fixture
def harness(rehearsal, shelf):
    home, models = shelf
    simulator = rehearsal.simulator
    made = Harness(
        rehearsal,
        tuple(Revision.of(model) for model in models),
        payload=Payload(b"{}", JSON),
        broken=Revision.of(models[2], options={"image": "stub-broken"}),
        clock=RealClock(),
        writes=lambda: rehearsal._client.writes,
        reopen=lambda: Rehearsal(simulator, image="stub", home=home),
    )
    yield made
    made.cleanup()


TRIES = 12


class Patient:
    """Passes every call on, again and again while its error is transient; no flow runs here that would do so."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.repeated = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            for _try in range(TRIES):
                try:
                    return found(*args, **kwargs)
                except ModelDeployError as error:
                    if not error.transient:
                        raise
                    self.repeated += 1
                    time.sleep(min(0.02, getattr(error, "retry_after", None) or 0.005))
            return found(*args, **kwargs)

        return call


@pytest.fixture
def patient(rehearsal):
    return Patient(rehearsal)
