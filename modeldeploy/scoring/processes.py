"""The processes that score. A process that dies costs the part in its hand, never the job; where it was is known."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import attrs
import orjson

from modeldeploy.scoring.partwork import Done, Order
from modeldeploy.scoring.pool import Died, Failed, Finished, Happening, Ready
from modeldeploy.values.codec import from_json, to_json

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# A chunk's arrays are freed and wanted again for each chunk. The C library of Linux would give them back to the system each time,
# which then clears every page anew: half of the processor time of a cheap model.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


@attrs.define(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    order: Order | None = None
    at: tuple[int, int] | None = None
    ready: bool = False
    told: bool = False
    """Whether it said why it ends."""


class ProcessPool:
    """Workers in processes of their own, at most ``most``, among whom the cores are shared."""

    def __init__(self, job: Path, most: int) -> None:
        self._job = job
        self._most = most
        self._queue: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}

    def start(self) -> None:
        """Add a worker."""
        self._start(len(self._workers))

    def _start(self, number: int) -> None:
        share = str(max(1, (os.cpu_count() or 1) // self._most))
        environ = {**_KEEP_MEMORY, **dict.fromkeys(_THREADS, share), "ORT_DISABLE_TELEMETRY": "1", **os.environ}
        process = subprocess.Popen(
            [sys.executable, "-m", "modeldeploy.scoring.worker", str(self._job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ,
        )  # fmt: skip
        self._workers[number] = _Worker(process)
        assert process.stdout is not None  # noqa: S101 - asked for above
        threading.Thread(
            target=_listen, args=(process.stdout, lambda each: self._queue.put((number, each))), daemon=True
        ).start()

    def idle(self) -> list[int]:
        """Name the workers that wait for an order."""
        return [number for number, worker in self._workers.items() if worker.ready and worker.order is None]

    def submit(self, worker: int, order: Order) -> None:
        """Give a part to an idle worker; one that is dead by now is noticed by ``wait``."""
        found = self._workers[worker]
        found.order, found.at = order, None
        assert found.process.stdin is not None  # noqa: S101 - asked for when it was started
        with contextlib.suppress(BrokenPipeError):
            found.process.stdin.write(orjson.dumps(to_json(order)) + b"\n")
            found.process.stdin.flush()

    def wait(self, timeout: float) -> Happening | None:
        """Give what happened next. A dead worker is replaced when its death was no answer to an order to load the model."""
        try:
            number, message = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        worker = self._workers[number]
        return self._bury(number, worker) if message is None else _heard(number, worker, message)

    def _bury(self, number: int, worker: _Worker) -> Happening | None:
        code = _end(worker.process)
        if worker.told:
            return None
        died = Died(number, worker.order, worker.at, _how(code))
        self._start(number)
        return died

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            _end(worker.process)


def _listen(out: IO[bytes], put: Callable[[Any], None]) -> None:
    with out:
        for line in out:
            # A line that is cut off was being written when the worker died.
            if line.endswith(b"\n"):
                put(orjson.loads(line))
    put(None)


def _heard(number: int, worker: _Worker, message: dict[str, Any]) -> Happening | None:
    if "at" in message:
        first, last = message["at"]
        worker.at = (first, last) if last > first else None
        return None
    if "ready" in message:
        worker.ready = True
        return Ready(number)
    order, worker.order = worker.order, None
    if "failed" in message:
        worker.told = order is None
        return Failed(number, order, **message["failed"])
    assert order is not None  # noqa: S101 - a part is only done when it was ordered
    return Finished(number, order, from_json(Done, message["done"]))


def _end(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None  # noqa: S101 - asked for when it was started
    with contextlib.suppress(OSError):
        process.stdin.close()
    return process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
