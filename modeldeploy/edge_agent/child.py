"""The agent's hold on a model server: starts it, hears it, ends it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.edge_agent import server
from modeldeploy.serving.lifeline import die_with_parent

_LINE = 1 << 16
_MORE_S = 5.0
_PRELOADED = (
    "numpy", "onnxruntime", "modeldeploy.packaging.flavours.onnx", "modeldeploy.serving.access", "modeldeploy.serving.boot",
    "modeldeploy.serving.entrance", "modeldeploy.serving.http", "modeldeploy.serving.standalone", "uvloop",
)  # fmt: skip


def preload() -> None:
    """Load once what every model server of this device needs, so that a fork has it at once and shares its memory."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # A thread that numpy's library starts would not be there in a forked process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in _PRELOADED:
        # What is missing or broken shows in the self-test.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


@attrs.frozen
class Order:
    """What a model server is to serve."""

    bundle: Path
    revision: str
    grace: float
    """Seconds for requests in flight when it is told to end."""
    site: Path | None = None
    """A directory of libraries that come before this interpreter's own."""


class Child:
    """One process with one release."""

    def __init__(self, order: Order, listener: socket.socket) -> None:
        self.order = order
        self.proved = self.serving = False
        self.failed = ""
        """Why it did not pass its self-test."""
        self.versions: dict[str, str] = {}
        self.outcomes: dict[str, int] = {}
        """What it last said of its answers."""
        self.code: int | None = None
        """Its exit code, negative for a signal; None while it runs."""
        self.began = time.monotonic()
        self._told = False
        self._heard = b""
        self._asked: float | None = None
        self._control, theirs = socket.socketpair()
        with theirs:
            self.pid = _start(order, listener, theirs)
        self._control.settimeout(0)

    def fileno(self) -> int:
        """Name the descriptor that can be read when it has said something, or has ended."""
        return self._control.fileno()

    def read(self) -> None:
        """Take in what it said since; never waits."""
        with contextlib.suppress(OSError):
            while data := self._control.recv(_LINE):
                self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._take(orjson.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        self.proved = self.proved or "proved" in said
        self.serving = self.serving or "serving" in said
        self.failed = said.get("failed", self.failed)
        self.versions = said.get("versions", self.versions)
        if "outcomes" in said:
            self.outcomes, self._asked = said["outcomes"], None

    def go(self) -> None:
        """Let it serve, once."""
        if not self._told:
            self._told = True
            self._send(server.GO)

    def ask(self) -> None:
        """Ask how it is; one question at a time."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._send(server.ASK)

    @property
    def silent(self) -> float:
        """For how many seconds it has owed an answer."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked

    @property
    def reason(self) -> str:
        """Why it has ended, as far as can be seen from here."""
        return self.failed or f"its process ended with status {self.code}"

    def _send(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._control.send(word)

    def ended(self) -> bool:
        """Whether it has ended; reaps it."""
        if self.code is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)
        self._reap(None)

    def retire(self) -> None:
        """Let it answer what it has in hand, and end."""
        self._signal(signal.SIGTERM)
        if not self._reap(self.order.grace + _MORE_S):
            self.kill()
        self.close()

    def close(self) -> None:
        """Let go of the connection to a process that has ended."""
        self._control.close()

    def _signal(self, number: signal.Signals) -> None:
        if not self.ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _reap(self, seconds: float | None) -> bool:
        """Wait for its end; the other side of the connection closes with it."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.ended():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            select.select([], [], [], 0.01 if left is None else min(0.01, left))
        return True


def _start(order: Order, listener: socket.socket, control: socket.socket) -> int:
    parent, fork = os.getpid(), order.site is None and can_fork()
    pid = os.fork()
    if pid == 0:
        act = _go_on if fork else _begin_anew
        server.become(lambda: act(parent, order, listener, control))
    return pid


def can_fork() -> bool:
    """Whether a forked process may go on with what is loaded here: Linux, and no other thread."""
    return sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - names only


def _go_on(parent: int, order: Order, listener: socket.socket, control: socket.socket) -> int:
    """Serve with what is loaded already."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the agent
    die_with_parent(parent)
    os.dup2(2, 1)
    keep = {0, 1, 2, listener.fileno(), control.fileno()}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only, and the listing's own descriptor is among them
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
    return server.run(order.bundle, listener, control, revision=order.revision, grace=order.grace)


def _begin_anew(parent: int, order: Order, listener: socket.socket, control: socket.socket) -> int:
    """Serve in another interpreter; never returns."""
    for sock in (listener, control):
        os.set_inheritable(sock.fileno(), True)  # noqa: FBT003 - it takes it by position alone
    os.dup2(2, 1)
    given = {
        "bundle": order.bundle,
        "revision": order.revision,
        "grace": order.grace,
        "listen": listener.fileno(),
        "control": control.fileno(),
        "parent": parent,
    }
    own = str(Path(server.__file__).parent.parent.parent)
    paths = [*([str(order.site)] if order.site else []), own, os.environ.get("PYTHONPATH", "")]
    # Without the directory that the agent happens to stand in.
    environ = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [
        sys.executable,
        "-m",
        "modeldeploy.edge_agent.server",
        *(f"--{name}={value}" for name, value in given.items()),
    ]
    os.execve(command[0], command, environ)  # noqa: S606 - the arguments are ours
