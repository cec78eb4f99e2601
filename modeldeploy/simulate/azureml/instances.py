"""Instances of a deployment: real processes of this machine, built from the uploaded bytes and asked over HTTP."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import orjson

from modeldeploy.simulate.azureml.programs import PORT, Program
from modeldeploy.simulate.sagemaker.launcher import ROOT, Launcher
from modeldeploy.simulate.sagemaker.wire import Line, UnreachableError

_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
_EVERY_S = 0.05
_PROBE_S = 2.0
_GRACE_S = 5.0
_OK = 200
_PAUSE_S = 1.0
_KEPT = 20_000


class StartError(Exception):
    """The process did not become ready; ``exited`` is its exit code when it ended by itself."""

    def __init__(self, exited: int | None) -> None:
        super().__init__("not ready" if exited is None else f"ended with {exited}")
        self.exited = exited


@attrs.frozen
class Patience:
    """How long a process may take to become ready, in seconds of this machine."""

    silent_s: float
    """Without any answer."""
    unwell_s: float
    """Answering that it is not ready."""


@attrs.frozen
class Paths:
    """Where a container says that it is alive, that it is ready, and where it scores."""

    liveness: str = "/"
    readiness: str = "/"
    scoring: str = "/score"


class Log:
    """The latest lines of what a deployment's containers printed, in memory."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Add a line."""
        with self._lock:
            self._lines.append(line)

    def tail(self, count: int) -> list[str]:
        """Give the latest lines."""
        with self._lock:
            return list(self._lines)[-count:] if count > 0 else []


class Instance:
    """One process; its directory is removed when it stops."""

    def __init__(self, launcher: Launcher, directory: Path, log: Log) -> None:
        self.directory = directory
        self._launcher = launcher
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._line: Line | None = None

    def start(self, program: Program, environment: Mapping[str, str]) -> None:
        """Start the process; whether it becomes ready is for ``wait`` to say."""
        argv = list(program.argv)
        if PORT in argv:
            port = _free_port()
            argv = [str(port) if each == PORT else each for each in argv]
            self._line = Line(port)
        env = {**_environment(self.directory, library=program.library), **environment}
        self._process = self._launcher.start(argv, env, self.directory)
        self._pump = threading.Thread(target=self._read, args=(self._process,), name="instance output", daemon=True)
        self._pump.start()

    def wait(self, path: str, limits: Patience, stop: threading.Event) -> None:
        """Ask whether it is ready until it says 200; StartError when it ends before, says no for too long, or takes too long."""
        begun = time.monotonic()
        refused: float | None = None
        while (status := self.probe(path)) != _OK:
            now = time.monotonic()
            refused = (refused or now) if status else None
            ended = self._process.poll() if self._process is not None else 0
            if ended is not None:
                raise StartError(ended)
            late = now - begun > limits.silent_s or (refused is not None and now - refused > limits.unwell_s)
            if late or stop.wait(_EVERY_S):
                raise StartError(None)

    def probe(self, path: str) -> int:
        """Tell the status of its answer to a probe; 0 when there was none."""
        if self._line is None:
            return 0
        with contextlib.suppress(OSError):
            return self._line.ask("GET", path, {}, b"", _PROBE_S).status
        return 0

    @property
    def line(self) -> Line:
        """Its connections; UnreachableError while it has not said where it listens."""
        if self._line is None:
            message = "the container has not said where it listens"
            raise UnreachableError(message)
        return self._line

    @property
    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Ask it to end, make it end, and remove its directory."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            _end(self._process)
        if self._pump is not None:
            self._pump.join()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        output = process.stdout
        if output is None:
            return
        with output:
            for data in output:
                line = data.decode("utf-8", "replace").rstrip("\r\n")
                port = _announced(line) if self._line is None else None
                if port is None:
                    self._log.write(line)
                else:
                    self._line = Line(port)


@attrs.define(eq=False, kw_only=True)
class Fleet:
    """What answers for a deployment at a time."""

    paths: Paths
    slots: threading.Semaphore
    """How many requests are taken at a time."""
    timeout_s: float
    """How long a container may take to answer, in seconds of this machine."""
    start: Callable[[], Instance]
    """Starts one more instance."""
    liveness_s: float
    """How often each is asked whether it is alive, in seconds of this machine."""
    most_failures: int
    """How often in a row it may say no."""
    again_s: float = 0.0
    """From when on an instance may be started again: not at once, and not all the time."""
    instances: list[Instance] = attrs.field(factory=list)
    _turn: itertools.count[int] = attrs.field(factory=itertools.count)
    _asked: dict[Instance, float] = attrs.field(factory=dict)
    _failed: Counter[Instance] = attrs.field(factory=Counter)

    def next(self) -> Instance | None:
        """Give the instance whose turn it is."""
        instances = self.instances
        return instances[next(self._turn) % len(instances)] if instances else None

    def is_dead(self, instance: Instance) -> bool:
        """Say whether an instance is to be started again; asks it, when it is time to."""
        now = time.monotonic()
        if now < self.again_s or (not instance.ended and now - self._asked.get(instance, 0.0) < self.liveness_s):
            return False
        self._asked[instance] = now
        well = not instance.ended and instance.probe(self.paths.liveness) == _OK
        self._failed[instance] = 0 if well else self._failed[instance] + 1
        if instance.ended or self._failed[instance] >= self.most_failures:
            del self._asked[instance], self._failed[instance]
            self.again_s = now + _PAUSE_S
            return True
        return False


def _announced(line: str) -> int | None:
    if not line.startswith("{"):
        return None
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return int(orjson.loads(line)["port"])
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(directory: Path, *, library: bool) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    paths = [each for each in (ROOT, os.environ.get("PYTHONPATH", "")) if each] if library else []
    return {
        **kept,
        "HOME": str(directory),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started, which is one session."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
