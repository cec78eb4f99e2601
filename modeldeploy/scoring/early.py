"""A runner before its job is known: ``python -m modeldeploy.scoring.early WORKERS``, with a Unix socket as its stdin.

Whoever starts it has yet to find out what the job is; meanwhile it imports what it needs. Then it is told the request, as a line: it lets a
first worker load the model of a large job, looks at the tables, and says so with one byte if it finds nothing wrong. Last it is sent the job's
directory with the lease, and runs the job; or the connection ends at any time, and nothing has happened.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy.scoring import forking
from modeldeploy.scoring.launch import Launched, Shape, go_on_in, launch, settled

if TYPE_CHECKING:
    from modeldeploy.scoring.job import Request

PATIENCE_S = 30.0
_LONGEST = 65_536


def main(arguments: list[str]) -> int:
    """Run the job that comes; 0 done or none came, 1 failed or stopped."""
    # Of what is made while modules load next to nothing can be collected.
    gc.disable()
    with socket.socket(fileno=os.dup(0)) as line:
        line.settimeout(PATIENCE_S)
        return _serve(line, workers=int(arguments[0]))


def _serve(line: socket.socket, *, workers: int) -> int:
    from modeldeploy.scoring import sharing

    share = sharing.share(workers or sharing.cores())
    # The first worker is a copy of this process, and its libraries are loaded here.
    with settled(share):
        from modeldeploy.scoring import plan, schemas, worker  # noqa: F401 - what both need

        schemas.need_pyarrow()
        told = _hear_request(line)
        if told is None:
            return 0
        request, shape = told
        launched = _begin(request.charge(), shape, line, share=share) if shape else None
    try:
        plan.inspect(request.spec)
        line.sendall(b".")
        return _wait(line, launched)
    finally:
        if launched is not None:
            launched.end()


def _hear_request(line: socket.socket) -> tuple[Request, Shape | None] | None:
    """Wait for what is asked for, with the shape of the worker of a large job; None when there will be nothing."""
    import orjson

    from modeldeploy.scoring.job import Request

    heard = b""
    while not heard.endswith(b"\n"):
        try:
            more = line.recv(_LONGEST)
        except OSError:
            more = b""
        if not more:
            return None
        heard += more
    told = orjson.loads(heard)
    return Request.read(told["request"].encode()), Shape(*told["shape"]) if told["shape"] else None


def _begin(charge: str, shape: Shape, line: socket.socket, *, share: int) -> Launched:
    """Start the worker: where possible as a copy, so that what both need is imported once."""
    from modeldeploy.scoring import worker

    if not forking.POSSIBLE or shape.share != share:
        return launch(charge, shape)

    def score() -> int:
        line.close()
        return worker.work(charge, shape.seats)

    gc.freeze()
    return Launched(forking.fork(score), charge, shape)


def _wait(line: socket.socket, launched: Launched | None) -> int:
    # Only now: these take as long as the worker takes to begin.
    from modeldeploy.scoring.__main__ import carry_out
    from modeldeploy.scoring.durable import Lease
    from modeldeploy.scoring.job import Job

    gc.freeze()
    gc.enable()
    heard = _hear_job(line)
    if heard is None:
        return 0
    home, lease = heard
    job = Job(home)
    if launched is None:
        # Else the worker, which says more, brings along what both said.
        go_on_in(job.log, stdout=True)
    return carry_out(job, Lease(lease), launched)


def _hear_job(line: socket.socket) -> tuple[Path, int] | None:
    """Wait for the job's directory and its lease; None when there will be none."""
    try:
        home, handles, _flags, _address = socket.recv_fds(line, _LONGEST, 1)
    except OSError:
        return None
    return (Path(os.fsdecode(home)), handles[0]) if handles else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
