"""A process that has loaded the libraries and forks workers: ready in tens of milliseconds where a fresh interpreter takes a second or more.

``python -m modeldeploy.backends.local.forkserver --control FD --flavour NAME --parent PID``, or forked by the supervisor; Linux only. It stays single-threaded: a fork
of a process with threads, OpenMP regions or open sessions may hang. When it has threads after all it refuses, and workers are spawned.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from modeldeploy.backends.local.forking import fork
from modeldeploy.packaging.flavours import lean
from modeldeploy.serving.lifeline import die_with_parent
from modeldeploy.serving.worker import run as work

MESSAGE_LIMIT = 1 << 20
DESCRIPTORS = 3
"""Sent with each order: where to say "ready", what ends when the supervisor does, where to log."""

_ALWAYS = ("numpy", "modeldeploy.serving.boot")
_LIBRARIES = {
    "sklearn": (
        "modeldeploy.packaging.flavours.sklearn", "joblib", "sklearn.pipeline", "sklearn.compose", "sklearn.preprocessing",
        "sklearn.linear_model", "sklearn.ensemble", "sklearn.tree", "sklearn.svm", "sklearn.neighbors", "sklearn.naive_bayes",
        "sklearn.impute", "sklearn.calibration",
    ),
    "xgboost": ("modeldeploy.packaging.flavours.xgboost", "xgboost"),
    "lightgbm": ("modeldeploy.packaging.flavours.lightgbm", "lightgbm"),
    "onnx": ("modeldeploy.packaging.flavours.onnx", "onnxruntime"),
}  # fmt: skip
# Threads that cope with a fork: jemalloc, which pyarrow brings, starts its own again in the child (its pthread_atfork handlers).
_HARMLESS = frozenset({"jemalloc_bg_thd"})


def preload(flavour: str) -> None:
    """Load what models of this flavour need; what is missing or broken shows when a worker loads its model."""
    # Of what is made while modules load next to nothing can be collected.
    gc.disable()
    if flavour == "onnx":
        with contextlib.suppress(Exception):
            lean.numpy()
    _load(*_ALWAYS)
    if flavour == "sklearn":
        _load_sklearn()
    else:
        _load(*_LIBRARIES.get(flavour, ()))
    _settle()


def _load_sklearn() -> None:
    from modeldeploy.packaging.flavours import skops

    with lean.imports():
        _load(*_LIBRARIES["sklearn"])
    with contextlib.suppress(Exception):
        skops.preload(lean=True)


def _load(*names: str) -> None:
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _settle() -> None:
    """Keep what is here now: the collector need not look at it, so the pages stay shared with the workers."""
    gc.freeze()
    gc.enable()


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program."""
    import argparse

    parser = argparse.ArgumentParser(prog="modeldeploy.backends.local.forkserver")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--flavour", default="")
    arguments = parser.parse_args(argv)
    die_with_parent(arguments.parent)
    return serve(socket.socket(fileno=arguments.control), arguments.flavour)


def serve(control: socket.socket, flavour: str) -> int:
    """Preload, then fork for each order until the supervisor's side of the control socket closes."""
    # It ends when the supervisor lets go of it, never before its workers: not by a signal to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    preload(flavour)
    return _serve(control)


def _serve(control: socket.socket) -> int:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    while True:
        readable, _writable, _errors = select.select([control.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            _reap(control)
        if control.fileno() in readable:
            data, descriptors, _flags, _address = socket.recv_fds(control, MESSAGE_LIMIT, DESCRIPTORS)
            if not data:
                return 0
            _obey(control, orjson.loads(data), descriptors)


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.send(orjson.dumps({"exited": pid, "code": os.waitstatus_to_exitcode(status)}))


def _obey(control: socket.socket, order: dict[str, Any], descriptors: list[int]) -> None:
    number = order.pop("id")
    _load_container(order["bundle"])
    threads = _threads()
    if threads > 1:
        answer: dict[str, Any] = {"id": number, "error": f"the fork server has {threads} threads"}
    else:
        answer = {"id": number, "pid": fork(lambda: _become_worker(order, descriptors), keep=descriptors)}
    for descriptor in descriptors:
        os.close(descriptor)
    control.send(orjson.dumps(answer))


def _load_container(bundle: str) -> None:
    """Load pandas for a model that is given its tables, so that its workers share it; what is wrong with the bundle is theirs to tell."""
    if "pandas" in sys.modules:
        return
    from modeldeploy.packaging.bundle import Bundle

    with contextlib.suppress(Exception):
        if Bundle.open(Path(bundle)).manifest.container == "pandas":
            _load("pandas")
            _settle()


def _threads() -> int:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(1 for name in names if name not in _HARMLESS)


def _become_worker(order: dict[str, Any], descriptors: list[int]) -> int:
    """Run a worker in this, the forked, process: undo what only the fork server needs, and take the descriptors over."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    ready, life, log = descriptors
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    _reseed()
    bundle, address = Path(order.pop("bundle")), order.pop("socket")
    return work(bundle, address, **order, ready_fd=ready, stdin_fd=life)


def _reseed() -> None:
    # Every worker would otherwise draw the same numbers. A model may want one of them only later, when it seeds itself.
    for name in ("random", "numpy.random"):
        if (module := sys.modules.get(name)) is not None:
            module.seed()


if __name__ == "__main__":
    raise SystemExit(main())
