"""The processes that score. A process that dies costs the parts in its hands, never the job; where it was is known."""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

import attrs
import orjson

from modeldeploy.scoring.forking import Forked
from modeldeploy.scoring.job import Job
from modeldeploy.scoring.launch import Launched, Shape, launch
from modeldeploy.scoring.partwork import Done, Order
from modeldeploy.scoring.pool import Died, Failed, Finished, Hand, Happening, Ready
from modeldeploy.scoring.sharing import share
from modeldeploy.values.codec import from_json, to_json

Process: TypeAlias = "subprocess.Popen[bytes] | Forked"


@attrs.define(eq=False)
class _Seat:
    """One thread of a process, as seen from here."""

    number: int
    worker: _Worker
    order: Order | None = None
    at: tuple[int, int] | None = None


@attrs.define(eq=False)
class _Worker:
    process: Process
    seats: list[_Seat] = attrs.field(factory=list[_Seat])
    """In the order in which the process knows them."""
    ready: bool = False
    told: bool = False
    """Whether it said why it ends."""


class ProcessPool:
    """Workers in processes of their own, with ``threads`` seats each and ``most`` of these in all, among which the cores are shared.

    ``early`` is one that loads the model already; it is taken if it is like the first one would be.
    """

    def __init__(self, job: Path, most: int, *, threads: int = 1, early: Launched | None = None) -> None:
        self._job = job
        self._early = early
        self._most = most
        self._threads = threads
        self._queue: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._seats: dict[int, _Seat] = {}
        self._numbers = itertools.count()

    def start(self) -> int:
        """Add a worker and give the number of its seats."""
        return self._start(self._threads)

    def _start(self, seats: int) -> int:
        process = self._launched(Job(self._job).request().charge(), Shape(seats, share(self._most))).process
        _write(process, {"job": str(self._job)})
        worker = _Worker(process)
        worker.seats = [_Seat(next(self._numbers), worker) for _seat in range(seats)]
        self._workers.append(worker)
        self._seats.update({seat.number: seat for seat in worker.seats})
        assert process.stdout is not None  # noqa: S101 - asked for above
        threading.Thread(
            target=_listen, args=(process.stdout, lambda each: self._hear(worker, each)), daemon=True
        ).start()
        return seats

    def _hear(self, worker: _Worker, message: Any) -> None:
        """Note at once where a seat is, which wakes nobody; all else is for ``wait``."""
        if message is not None and "at" in message:
            first, last = message["at"]
            worker.seats[message["seat"]].at = (first, last) if last > first else None
        else:
            self._queue.put((worker, message))

    def _launched(self, charge: str, shape: Shape) -> Launched:
        early, self._early = self._early, None
        if early is not None:
            if early.fits(charge, shape):
                return early
            early.end()
        return launch(charge, shape)

    def idle(self) -> list[int]:
        """Name the seats that wait for an order."""
        return [number for number, seat in self._seats.items() if seat.worker.ready and seat.order is None]

    def submit(self, seat: int, order: Order) -> None:
        """Give a part to an idle seat; a process that is dead by now is noticed by ``wait``."""
        found = self._seats[seat]
        found.order, found.at = order, None
        _write(found.worker.process, {"seat": found.worker.seats.index(found), "order": to_json(order)})

    def wait(self, timeout: float) -> Happening | None:
        """Give what happened next. A dead process is replaced when its death was no answer to an order to load the model."""
        try:
            worker, message = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        return self._bury(worker) if message is None else _heard(worker, message)

    def _bury(self, worker: _Worker) -> Happening | None:
        code = _end(worker.process)
        self._workers.remove(worker)
        for seat in worker.seats:
            del self._seats[seat.number]
        if worker.told:
            return None
        # Each seat in a process of its own from now on: the next one that dies has one row in hand to blame, not one for each thread.
        for _seat in worker.seats:
            self._start(1)
        hands = (Hand(seat.number, seat.order, seat.at) for seat in worker.seats if seat.order is not None)
        return Died(tuple(hands), _how(code))

    def dismiss(self) -> None:
        """Let all workers end at once; to give back its memory takes one some hundredths of a second."""
        for worker in self._workers:
            worker.process.kill()

    def close(self) -> None:
        """End all workers, and wait until they have ended."""
        self.dismiss()
        for worker in self._workers:
            _end(worker.process)


def _write(process: Process, message: dict[str, Any]) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for when it was started
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(orjson.dumps(message) + b"\n")
        process.stdin.flush()


def _listen(out: IO[bytes], put: Callable[[Any], None]) -> None:
    with out:
        for line in out:
            # A line that is cut off was being written when the worker died.
            if line.endswith(b"\n"):
                put(orjson.loads(line))
    put(None)


def _heard(worker: _Worker, message: dict[str, Any]) -> Happening:
    if "ready" in message:
        worker.ready = True
        return Ready()
    if "seat" not in message:
        worker.told = True
        return Failed(None, **message["failed"])
    return _heard_of_part(worker.seats[message["seat"]], message)


def _heard_of_part(seat: _Seat, message: dict[str, Any]) -> Happening:
    order, seat.order = seat.order, None
    assert order is not None  # noqa: S101 - a part only ends when it was ordered
    if "failed" in message:
        return Failed(order, **message["failed"])
    return Finished(order, from_json(Done, message["done"]))


def _end(process: Process) -> int:
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
