"""A backend of its own for each test, models that do as their input says, and proof that nothing is left running."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest
import urllib3

from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, Payload, Revision, Scale, Traffic
from modeldeploy.values.ticket import Phase, Ticket

DIE, SLEEP, RAISE, HANG, SAY = -1.0, -2.0, -3.0, -4.0, -5.0


class Obedient:
    """Answers ``x + step``; certain inputs make it die, sleep, raise, hang or speak."""

    def __init__(self, step: float, *, broken: bool = False) -> None:
        self.step = step
        self.broken = broken

    def predict(self, x):
        import os
        import signal
        import time

        values = np.asarray(x, dtype=float).ravel().tolist()
        if -1.0 in values:
            os.kill(os.getpid(), signal.SIGKILL)
        if -2.0 in values:
            time.sleep(0.5)
        if -3.0 in values:
            raise RuntimeError("asked to raise")
        if -4.0 in values:
            time.sleep(3600)
        if -5.0 in values:
            print("the model says hello")  # noqa: T201 - what a model may do
        if self.broken and 7.0 in values:
            raise RuntimeError("broken")
        return np.asarray(x, dtype=float) + self.step


class Troubled:
    """Answers ``x + 1``; is "wrong" for one whole number in ten, or "hangs" from 100 on."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def predict(self, x):
        import time

        values = np.asarray(x, dtype=float)
        if self.kind == "hangs" and (values >= 100).any():
            time.sleep(1.5)  # longer than anybody waits, and short enough for the test to end
        return values + 1 + (self.kind == "wrong") * (values % 10 == 7)


class Unloadable:
    """Can be packaged, and refuses to be loaded where the environment says so."""

    def __init__(self) -> None:
        self.kind = "other"

    def predict(self, x):
        return np.asarray(x, dtype=float)

    def __setstate__(self, state):
        import os

        if os.environ.get("REFUSE_TO_LOAD"):
            raise RuntimeError("the weights are of another kind")


class Dying:
    """Can be packaged, and takes its process with it when it is loaded where the environment says so."""

    def __init__(self) -> None:
        self.kind = "dying"

    def predict(self, x):
        return np.asarray(x, dtype=float)

    def __setstate__(self, state):
        import os

        if os.environ.get("DIE_WHILE_LOADING"):
            os.write(2, b"libgpu: no device found\n")
            os._exit(7)


def payload(*values: float) -> Payload:
    """Write an infer request with these rows."""
    tensor = {"name": "input", "shape": [len(values)], "datatype": "FP64", "data": list(values)}
    return Payload(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"})


class Shelf:
    """Packages each model once for all tests."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bundles: dict[str, Bundle] = {}

    def bundle(self, model: object, version: str) -> Bundle:
        key = f"{type(model).__name__}-{sorted(vars(model).items())}-{version}"
        if key not in self._bundles:
            store = Store(self._root / str(len(self._bundles)))
            self._bundles[key] = package(
                model, name="model", version=version, example=np.array([1.0, 2.0]), store=store
            )
        return self._bundles[key]


class Local:
    """A backend with shorthands for what every test does."""

    def __init__(self, home: Path, shelf: Shelf) -> None:
        self.home = home
        self.backend = LocalBackend(home)
        self.store = Store(home / "store")
        self._shelf = shelf

    def revision(self, step: float = 1.0, *, workers: int = 1, model: object | None = None, **options: str) -> Revision:
        """Give the revision of a model; ``step`` makes its content."""
        bundle = self._shelf.bundle(Obedient(step) if model is None else model, f"1.{int(step)}.0")
        self.store.trust(bundle.digest)
        return Revision.of(bundle.model_version(), scale=Scale(workers), options=options)

    def carry(self, ticket: Ticket, *, timeout: float = 30.0) -> Ticket:
        """Advance to the end."""
        deadline = time.monotonic() + timeout
        while not ticket.phase.ended:
            assert time.monotonic() < deadline, ticket
            ticket = self.backend.advance(ticket)
            time.sleep(min(ticket.poll_after, 0.02))
        return ticket

    def deploy(self, *revisions: Revision, endpoint: str = "iris", **options: str) -> None:
        """Put revisions; all must become ready."""
        for revision in revisions:
            ticket = self.carry(self.backend.put_revision(EndpointSpec(endpoint, options), revision))
            assert ticket.phase is Phase.SUCCEEDED, ticket.note

    def shift(
        self, table: dict[str, int], *, endpoint: str = "iris", expect: str | None = None, **more: object
    ) -> Ticket:
        """Set a table; ``shadow`` and ``key`` as in Traffic."""
        return self.carry(self.backend.set_traffic(endpoint, Traffic(table, **more), expect=expect))

    def seen(self, revision: Revision, share: int | None = None, *, endpoint: str = "iris") -> Window:
        """Read all that a meter counted."""
        return self.backend.window(endpoint, revision.id, 0, 1e12, share=share)

    def predict(
        self, *values: float, endpoint: str = "iris", revision: str | None = None, timeout: float = 10.0
    ) -> list[float]:
        """Ask the endpoint."""
        answer = self.backend.invoke(endpoint, payload(*values), revision=revision, timeout=timeout)
        return json.loads(answer.body)["outputs"][0]["data"]

    def workers(self, revision: Revision, *, endpoint: str = "iris") -> list[int]:
        """Name the worker processes of a revision."""
        return self.backend.processes().get("workers", {}).get(f"{endpoint}/{revision.id}", [])


@pytest.fixture
def local(modeldeploy_home: Path, make_local: Callable[[Path], Local]) -> Local:
    return make_local(modeldeploy_home)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def make_local(modeldeploy_home: Path, shelf: Shelf) -> Iterator[Callable[[Path], Local]]:
    every: list[Local] = []

    def make(home: Path) -> Local:
        every.append(Local(home, shelf))
        return every[-1]

    yield make
    for made in every:
        made.backend.close()
        made.backend.shutdown()
    left = running(modeldeploy_home)
    assert left == [], "processes were left running"


def running(home: Path) -> list[str]:
    """Find every process that was started for a home, whatever its parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("MODELDEPLOY_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE
            if mine:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


class Load:
    """Clients on kept-alive connections that ask one after another until told to stop."""

    def __init__(self, url: str, body: bytes, connections: int) -> None:
        self.statuses: list[tuple[int, str]] = []
        self.bodies: set[bytes] = set()
        self.seconds: list[float] = []
        self._url, self._body = url, body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _each in range(connections)]

    def _ask(self) -> None:
        pool = urllib3.PoolManager(retries=False)
        while not self._stop.is_set():
            began = time.perf_counter()
            try:
                answer = pool.request(
                    "POST", self._url, body=self._body, headers={"content-type": "application/json"}, timeout=20
                )
                self.statuses.append((answer.status, answer.headers.get("modeldeploy-revision", "")))
                self.bodies.add(answer.data)
                self.seconds.append(time.perf_counter() - began)
            except urllib3.exceptions.HTTPError as error:
                self.statuses.append((0, repr(error)))
        pool.clear()

    @property
    def failed(self) -> list[tuple[int, str]]:
        return [each for each in self.statuses if each[0] != 200]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def under_load(local: Local, wait_until: Callable) -> Callable[..., Load]:
    def start(*values: float, endpoint: str = "iris", connections: int = 8) -> Load:
        url = local.backend.observe(endpoint).url
        return Load(f"{url}/v2/models/{endpoint}/infer", payload(*(values or (1.0,))).body, connections)

    return start


@pytest.fixture
def unloadable() -> object:
    return Unloadable()


@pytest.fixture
def dying() -> object:
    return Dying()


@pytest.fixture
def troubled() -> Callable[[str], object]:
    """Give ``troubled(kind)``: a model that is "wrong" for one whole number in ten, or "hangs" from 100 on."""
    return Troubled


@pytest.fixture
def broken_model() -> object:
    return Obedient(1.0, broken=True)


@pytest.fixture
def query() -> Callable[..., Payload]:
    return payload
