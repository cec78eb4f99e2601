"""Real endpoints to be broken: the rig of the local backend's tests, models that misbehave as their input says, clients in another process."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import urllib3

HERE = Path(__file__).parent


def _load(name: str, path: Path) -> Any:
    """Load a file by its path: tests are no package that it could be imported from."""
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_rig = _load("faults_rig", HERE.parent / "backends" / "local" / "conftest.py")
local, make_local, shelf, under_load = _rig.local, _rig.make_local, _rig.shelf, _rig.under_load
unloadable, dying = _rig.unloadable, _rig.dying
serve = _load("faults_server", HERE.parent / "serving" / "conftest.py").serve


class Fragile:
    """Answers ``x + 1`` after ``seconds`` for each row; certain inputs break it in ways of their own."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def predict(self, x):
        import time

        values = np.asarray(x, dtype=float).ravel()
        for value, act in ((-11.0, self._crash), (-12.0, self._hoard), (-13.0, self._talk), (-16.0, self._fail)):
            if (values == value).any():
                act()
        time.sleep(self.seconds * len(values))
        return np.where(np.asarray(x, dtype=float) == -15.0, np.nan, np.asarray(x, dtype=float) + 1)

    def _crash(self):
        import ctypes

        ctypes.string_at(0)

    def _hoard(self):
        import resource

        limits = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(open("/proc/self/statm").read().split()[0]) * 4096  # noqa: SIM115, PTH123 - as models do
        resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20), limits[1]))
        try:
            np.ones(1 << 28)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    def _talk(self):
        print("x" * 200 + "\n" + "y" * 200)  # noqa: T201 - what a model may do

    def _fail(self):
        raise RuntimeError("asked to raise")


class Sleepy:
    """Can be packaged, and takes for ever to load where the environment says so."""

    def __init__(self) -> None:
        self.kind = "sleepy"

    def predict(self, x):
        return np.asarray(x, dtype=float)

    def __setstate__(self, state):
        import os
        import time

        if os.environ.get("SLEEP_WHILE_LOADING"):
            time.sleep(3600)


@pytest.fixture
def sleepy() -> object:
    return Sleepy()


@attrs.frozen
class Sent:
    """What became of the requests of an open loop."""

    results: list[list[float]]

    @property
    def statuses(self) -> set[int]:
        return {int(status) for _latency, status, _retry in self.results}

    def count(self, *statuses: int) -> int:
        return sum(status in statuses for _latency, status, _retry in self.results)

    @property
    def without_retry_after(self) -> list[list[float]]:
        """Name the requests that were turned away without a time to come back."""
        return [each for each in self.results if each[1] in {429, 503} and not each[2]]

    def quantile(self, q: float) -> float:
        """Give a quantile of the latencies, in seconds, of the requests that were accepted, answered in time or not."""
        latencies = sorted(each[0] for each in self.results if each[1] in {200, 504})
        return latencies[min(len(latencies) - 1, int(q * len(latencies)))]


class Clients:
    """Another process that asks."""

    def __init__(self, mode: str, port: int, options: dict[str, Any]) -> None:
        command = [sys.executable, str(HERE / "clients.py"), mode, str(port), json.dumps(options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def result(self, timeout: float = 100.0) -> Any:
        output, _nothing = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0
        return json.loads(output)

    def sent(self) -> Sent:
        return Sent(self.result())


class Ground:
    """One endpoint with a fragile model, and shorthands for what every fault needs."""

    def __init__(self, local: Any, wait_until: Callable[..., Any]) -> None:
        self.local = local
        self.wait_until = wait_until
        self._clients: list[Clients] = []

    def deploy(self, *, seconds: float = 0.0, workers: int = 1, **options: str) -> Any:
        """Serve the fragile model; give its revision."""
        revision = self.local.revision(1.0, workers=workers, model=Fragile(seconds), **options)
        self.local.deploy(revision)
        self.revision = revision
        return revision

    @property
    def url(self) -> str:
        return self.local.backend.observe("iris").url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def front(self) -> int:
        return self.local.backend.processes()["front"]

    @property
    def workers(self) -> list[int]:
        return self.local.workers(self.revision)

    @property
    def serving(self) -> list[int]:
        """Name the workers when as many as asked for are ready; else none."""
        pids = self.workers
        wanted = self.revision.scale.workers
        return pids if self.metric("workers") == wanted == len(pids) else []

    def metric(self, name: str, revision: Any = None) -> float:
        """Read one number of a revision from /metrics."""
        labels = f'endpoint="iris",revision="{(revision or self.revision).id}"'
        with urllib3.PoolManager() as pool:
            text = pool.request("GET", f"{self.url}/metrics").data.decode()
        found = re.search(rf"^modeldeploy_{name}\{{{re.escape(labels)}\}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_for_deaths(self, count: int) -> None:
        """Wait until exactly so many workers have died."""
        self.wait_until(lambda: self.metric("worker_restarts_total") >= count, what=f"{count} deaths")
        assert self.metric("worker_restarts_total") == count

    def body(self, *values: float) -> str:
        return _rig.payload(*values).body.decode()

    def ask(self, *values: float, timeout: float = 20.0, **headers: str) -> Any:
        """Send one request on a connection of its own; give urllib3's answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with urllib3.PoolManager() as pool:
            return pool.request(
                "POST",
                f"{self.url}/v2/models/iris/infer",
                body=self.body(*values),
                headers={"content-type": "application/json", **named},
                timeout=timeout,
                retries=False,
            )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def clients(self, mode: str, **options: Any) -> Clients:
        self._clients.append(Clients(mode, self.port, {"path": "/v2/models/iris/infer", **options}))
        return self._clients[-1]

    def paced(self, rate: float, seconds: float, *values: float, **options: Any) -> Clients:
        """Let another process ask at a rate."""
        return self.clients("paced", rate=rate, seconds=seconds, bodies=[self.body(*(values or (1.0,)))], **options)

    def log(self) -> str:
        return "\n".join(
            line.text for line in self.local.backend.lines("iris", self.revision.id, since=0, limit=10_000)
        )

    def close(self) -> None:
        for each in self._clients:
            each.process.kill()
            each.process.communicate()


@pytest.fixture
def ground(local: Any, wait_until: Callable[..., Any]) -> Iterator[Ground]:
    made = Ground(local, wait_until)
    yield made
    made.close()


@attrs.define
class Peak:
    """The largest memory that a process held since this was made, by the kernel's own account."""

    pid: int
    before: int = 0

    def __attrs_post_init__(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")
        self.before = self._read()

    def _read(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) << 10

    @property
    def growth(self) -> int:
        return self._read() - self.before


@pytest.fixture(scope="session")
def peak() -> type[Peak]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a process")
    return Peak


@pytest.fixture(scope="session")
def seconds_until() -> Callable[[Callable[[], object]], float]:
    """Give ``seconds_until(condition)``: poll until it holds and tell how long that took."""

    def wait(condition: Callable[[], object], timeout: float = 20.0) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < timeout
            time.sleep(0.005)
        return time.monotonic() - began

    return wait


@pytest.fixture(scope="session")
def measured() -> Callable[[str, object], None]:
    """Give ``measured(what, value)``: tell a figure, which pytest shows with ``-rP``."""
    return lambda what, value: print(f"measured: {what}: {value}")  # noqa: T201 - shown when asked for
