"""A process that keeps the model loaded and scores the parts it is told to: ``python -m modeldeploy.scoring.worker JOB``.

Orders come as JSON lines on stdin, answers go as JSON lines to what was stdout. It ends when stdin does, so it never outlives its runner.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from modeldeploy.errors import ModelDeployError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.loading import load
from modeldeploy.scoring.job import Job
from modeldeploy.scoring.partwork import Order, PartWork
from modeldeploy.values.codec import from_json, to_json

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, no quota, or the largest file that this user may write."""


def main() -> int:
    """Serve until stdin ends."""
    # The model's own prints must not look like answers.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        work = prepare(Job(Path(sys.argv[1])))
    except Exception as error:  # noqa: BLE001 - told to the runner, whatever it is
        _say(out, {"failed": failure(error)})
        return 1
    _say(out, {"ready": os.getpid()})
    for order in _orders():
        _say(out, answer(work, order, out))
    return 0


def prepare(job: Job) -> PartWork:
    """Load the model of a job whose plan is written."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    request = job.request()
    bundle = Bundle.open(Path(request.spec.model.uri), expect=request.spec.model.digest)
    return PartWork(load(bundle, trust=request.trust), job)


def answer(work: PartWork, order: Order, out: IO[bytes]) -> Mapping[str, Any]:
    """Score one part and say what became of it."""
    try:
        return {"done": to_json(work.run(order, lambda start, stop: _say(out, {"at": [start, stop]})))}
    except Exception as error:  # noqa: BLE001 - told to the runner, whatever it is
        return {"failed": failure(error)}


def failure(error: Exception) -> dict[str, Any]:
    """Describe an error for a process that does not have it; ``full`` when the disk is."""
    if isinstance(error, ModelDeployError):
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "full": False}
    full = isinstance(error, OSError) and error.errno in FULL
    return {"kind": type(error).__name__, "message": str(error) or type(error).__name__, "hint": None, "full": full}


def _orders() -> Any:
    """Give the orders as they come; a thread waits for the end of stdin, so that it is noticed in the middle of a part too."""
    import queue

    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        # Not sys.stdin: the interpreter would wait for its lock when it ends.
        with os.fdopen(os.dup(0), "rb", buffering=0) as source:
            for line in source:
                orders.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield from_json(Order, orjson.loads(orders.get()))


def _say(out: IO[bytes], message: Mapping[str, Any]) -> None:
    try:
        out.write(orjson.dumps(message) + b"\n")
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
