"""A process that has loaded the libraries and forks workers: ready in tens of milliseconds where a fresh interpreter takes a second or more.

``python -m modeldeploy.backends.local.forkserver --control FD --parent PID --flavour NAME``; Linux only. It stays single-threaded: a fork
of a process with threads, OpenMP regions or open sessions may hang. When it has threads after all it refuses, and workers are spawned.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from modeldeploy.serving.lifeline import die_with_parent

MESSAGE_LIMIT = 1 << 20
DESCRIPTORS = 3
"""Sent with each order: where to say "ready", what ends when the supervisor does, where to log."""

_ALWAYS = ("numpy", "orjson", "modeldeploy.serving.boot", "modeldeploy.serving.worker")
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
    _load(*_ALWAYS)
    if flavour == "sklearn":
        _load_sklearn()
    else:
        _load(*_LIBRARIES.get(flavour, ()))
    _settle()


def _load_sklearn() -> None:
    from modeldeploy.packaging.flavours import lean, skops

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
    gc.collect()
    gc.freeze()
    gc.enable()


def main(argv: Sequence[str] | None = None) -> int:
    """Preload, then fork for each order until the supervisor's side of the control socket closes."""
    parser = argparse.ArgumentParser(prog="modeldeploy.backends.local.forkserver")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--flavour", default="")
    arguments = parser.parse_args(argv)
    die_with_parent(arguments.parent)
    # It ends when the supervisor lets go of it, never before its workers: not by a signal to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=arguments.control)
    preload(arguments.flavour)
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
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_worker(parent, order, descriptors)
        answer = {"id": number, "pid": pid}
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


def _become_worker(parent: int, order: dict[str, Any], descriptors: list[int]) -> None:
    """Run a worker in this, the forked, process; never returns."""
    code = 1
    try:
        ready, life, log = _settle_in(parent, descriptors)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        run = importlib.import_module("modeldeploy.serving.worker").run
        code = run(Path(order.pop("bundle")), order.pop("socket"), **order, ready_fd=ready, stdin_fd=life)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the fork server's own stack lies below this one; nothing may get there
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _settle_in(parent: int, descriptors: list[int]) -> list[int]:
    """Undo what only the fork server needs, and take the descriptors over."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent(parent)
    keep = {0, 1, 2, *descriptors}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only, and the listing's own descriptor is among them
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
    _reseed()
    return descriptors


def _reseed() -> None:
    # Every worker would otherwise draw the same numbers.
    import random

    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


if __name__ == "__main__":
    raise SystemExit(main())
