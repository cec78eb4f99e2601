"""Programs that stand for containers: real processes of this machine, asked over HTTP."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import orjson

from modeldeploy.simulate.launcher import ROOT, Launcher
from modeldeploy.simulate.wire import Line, UnreachableError

PORT = "{port}"
_PROBE_TIMEOUT_S = 2.0
_PROBE_EVERY_S = 0.05
_GRACE_S = 5.0
_OK = 200
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has but one
# What a process of this machine needs to run at all; of everything else a container knows nothing.
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")


@attrs.frozen
class Program:
    """A command; ``{port}`` in it stands for the port to listen on, without it the program prints a line of JSON with its ``port``."""

    argv: Sequence[str]
    library: bool = True
    """Whether it may import the modeldeploy of this environment."""


MODEL_SERVER = Program(
    (
        sys.executable,
        *("-m", "modeldeploy.serving", "serve", "--host", "127.0.0.1", "--port", "0", "--auth", "none", "--announce"),
    )
)


class StartError(Exception):
    """The container did not come up; ``exited`` tells whether it ended by itself."""

    def __init__(self, *, exited: bool) -> None:
        super().__init__("the container ended" if exited else "the container did not become well")
        self.exited = exited


@attrs.frozen
class Patience:
    """How long a container may take to come up, in seconds of this machine."""

    silent_s: float
    """Without any answer: a process of this machine takes this machine's time."""
    unwell_s: float
    """Answering that it is not well, which the service would hear for minutes."""


class Child:
    """One process, which works in ``directory`` and takes it along when it stops; ``health`` is where it is asked how it is."""

    def __init__(self, launcher: Launcher, directory: Path, log: Callable[[str], None], *, health: str = "/") -> None:
        self.directory = directory
        self.health = health
        self._launcher = launcher
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._line: Line | None = None

    def expect(self, port: int) -> None:
        """Know where it will listen, because its environment says so."""
        self._line = Line(port)

    def start(self, program: Program, environment: Mapping[str, str]) -> None:
        """Start the process; whether it comes up is for ``wait`` to say."""
        argv = program.argv
        if PORT in argv:
            port = free_port()
            argv = [str(port) if each == PORT else each for each in argv]
            self._line = Line(port)
        env = {**_environment(self.directory, library=program.library), **environment}
        self._process = self._launcher.start(argv, env, self.directory)
        self._pump = threading.Thread(target=self._read, args=(self._process,), name="container output", daemon=True)
        self._pump.start()

    def wait(self, limits: Patience, stop: threading.Event) -> None:
        """Ask how it is until it answers 200; StartError when it ends before, says no for too long, or does not come up in time."""
        begun = time.monotonic()
        refused: float | None = None
        while (status := self.probe()) != _OK:
            now = time.monotonic()
            refused = (refused or now) if status else None
            if self.ended:
                raise StartError(exited=True)
            late = now - begun > limits.silent_s or (refused is not None and now - refused > limits.unwell_s)
            if late or stop.wait(_PROBE_EVERY_S):
                raise StartError(exited=False)

    def probe(self, path: str = "") -> int:
        """Tell the status of its answer to a health check; 0 when there was none."""
        if self._line is None:
            return 0
        with contextlib.suppress(OSError):
            return self._line.ask("GET", path or self.health, {}, b"", _PROBE_TIMEOUT_S).status
        return 0

    @property
    def ended(self) -> bool:
        """Whether the process ended by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def line(self) -> Line:
        """Its connections; UnreachableError while it has not said where it listens."""
        if self._line is None:
            message = "the container has not said where it listens"
            raise UnreachableError(message)
        return self._line

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
                if port is not None:
                    self._line = Line(port)
                else:
                    self._log(line)


def _announced(line: str) -> int | None:
    if not line.startswith("{"):
        return None
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return int(orjson.loads(line)["port"])
    return None


def free_port() -> int:
    """Find a port that nothing listens on now."""
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
        _signal(process, _KILL)
    finally:
        _signal(process, _KILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
