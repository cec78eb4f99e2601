"""A process that keeps a model loaded and scores the parts it is told to: ``python -m modeldeploy.scoring.worker CHARGE SEATS``.

The job, which may not be known yet when it is started, and then orders come as JSON lines on stdin, answers go as JSON lines to what was stdout.
Each order names the seat, which is a thread, that scores it.
It ends when stdin does, so it never outlives its runner.
"""

from __future__ import annotations

import errno
import gc
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import orjson

from modeldeploy.errors import ModelDeployError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.loading import load
from modeldeploy.scoring import schemas
from modeldeploy.scoring.job import Job
from modeldeploy.scoring.launch import go_on_in
from modeldeploy.scoring.partwork import Order, PartWork
from modeldeploy.scoring.predict import Predictor
from modeldeploy.values.codec import from_json, to_json

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, no quota, or the largest file that this user may write."""

Say: TypeAlias = Callable[[Mapping[str, Any]], None]


def main() -> int:
    """Serve until stdin ends."""
    # All that is made until the model is loaded stays: looking through it for garbage again and again is a twentieth of that time.
    gc.disable()
    return work(sys.argv[1], int(sys.argv[2]))


def work(charge: str, seats: int) -> int:
    """Load the model, then serve until stdin ends; ``charge`` is what ``Request.charge`` gives."""
    # The model's own prints must not look like answers.
    say = _sayer(os.dup(1))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        model = prepare(**orjson.loads(charge))
    except Exception as error:  # noqa: BLE001 - told to the runner, whatever it is
        say({"failed": failure(error)})
        return 1
    gc.freeze()
    gc.enable()
    # Not sys.stdin: the interpreter would wait for its lock when it ends.
    with os.fdopen(os.dup(0), "rb", buffering=0) as source:
        told = source.readline()
        if told:
            job = Job(Path(orjson.loads(told)["job"]))
            go_on_in(job.log, stdout=False)
            _serve([PartWork(model, job) for _seat in range(seats)], source, say)
    return 0


def prepare(*, uri: str, digest: str, trust: Sequence[str]) -> Predictor:
    """Load the model that a job was charged with, and what reads tables."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    bundle = Bundle.open(Path(uri), expect=digest)
    if bundle.manifest.flavour == "sklearn" and not bundle.manifest.pickled:
        from modeldeploy.packaging.flavours import skops

        skops.preload(lean=True)
    model = load(bundle, trust=trust)
    schemas.need_pyarrow()
    return model


def failure(error: Exception) -> dict[str, Any]:
    """Describe an error for a process that does not have it; ``full`` when the disk is."""
    if isinstance(error, ModelDeployError):
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "full": False}
    full = isinstance(error, OSError) and error.errno in FULL
    return {"kind": type(error).__name__, "message": str(error) or type(error).__name__, "hint": None, "full": full}


class _Seat:
    """One thread's orders."""

    def __init__(self, number: int, work: PartWork, say: Say) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._number = number
        self._work = work
        self._tell = say

    def serve(self) -> None:
        """Score one part after the other."""
        while True:
            self._say(self._answer(self.orders.get()))

    def _answer(self, order: Order) -> Mapping[str, Any]:
        try:
            return {"done": to_json(self._work.run(order, lambda start, stop: self._say({"at": [start, stop]})))}
        except Exception as error:  # noqa: BLE001 - told to the runner, whatever it is
            return {"failed": failure(error)}

    def _say(self, message: Mapping[str, Any]) -> None:
        self._tell({"seat": self._number, **message})


def _serve(works: list[PartWork], source: IO[bytes], say: Say) -> None:
    """Let each seat score what it is ordered to; the first one in the main thread, which some models want to be called from."""
    first, *others = seats = [_Seat(number, work, say) for number, work in enumerate(works)]
    for target in (lambda: _listen(source, seats), *(seat.serve for seat in others)):
        threading.Thread(target=target, daemon=True).start()
    say({"ready": os.getpid()})
    first.serve()


def _listen(source: IO[bytes], seats: list[_Seat]) -> None:
    """Hand the orders to the seats; the end of stdin is noticed in the middle of a part too."""
    for line in source:
        message = orjson.loads(line)
        seats[message["seat"]].orders.put(from_json(Order, message["order"]))
    os._exit(0)


def _sayer(handle: int) -> Say:
    out, lock = os.fdopen(handle, "wb", buffering=0), threading.Lock()

    def say(message: Mapping[str, Any]) -> None:
        try:
            with lock:
                out.write(orjson.dumps(message) + b"\n")
        except BrokenPipeError:
            os._exit(0)

    return say


if __name__ == "__main__":
    raise SystemExit(main())
