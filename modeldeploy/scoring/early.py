"""A runner before its job is known: ``python -m modeldeploy.scoring.early [CHARGE SEATS SHARE]``, with a Unix socket as its stdin.

Whoever starts it still checks the job; meanwhile it imports what it needs, and a first worker loads the model. Then it is sent the job's
directory with the lease, and runs the job; or the connection ends, and nothing has happened.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path

from modeldeploy.scoring import forking
from modeldeploy.scoring.launch import Launched, Shape, go_on_in, launch, settled

PATIENCE_S = 30.0
_LONGEST = 65_536


def main(arguments: list[str]) -> int:
    """Run the job that comes; 0 done or none came, 1 failed or stopped."""
    # Of what is made while modules load next to nothing can be collected.
    gc.disable()
    launched = _begin(arguments[0], Shape(*map(int, arguments[1:]))) if arguments else None
    try:
        return _serve(launched)
    finally:
        if launched is not None:
            launched.end()


def _begin(charge: str, shape: Shape) -> Launched:
    """Start the worker: where possible as a copy, so that what both need is imported once."""
    if not forking.POSSIBLE:
        return launch(charge, shape)
    with settled(shape):
        from modeldeploy.scoring import schemas, worker

        schemas.need_pyarrow()
        gc.freeze()
        return Launched(forking.fork(lambda: worker.work(charge, shape.seats)), charge, shape)


def _serve(launched: Launched | None) -> int:
    # Only now: these take as long as the worker takes to begin.
    from modeldeploy.scoring import schemas
    from modeldeploy.scoring.__main__ import carry_out
    from modeldeploy.scoring.durable import Lease
    from modeldeploy.scoring.job import Job

    schemas.need_pyarrow()
    gc.freeze()
    gc.enable()
    heard = _hear()
    if heard is None:
        return 0
    home, lease = heard
    job = Job(home)
    if launched is None:
        # Else the worker, which says more, brings along what both said.
        go_on_in(job.log, stdout=True)
    return carry_out(job, Lease(lease), launched)


def _hear() -> tuple[Path, int] | None:
    """Wait for the job's directory and its lease; None when there will be none."""
    with socket.socket(fileno=os.dup(0)) as line:
        line.settimeout(PATIENCE_S)
        try:
            home, handles, _flags, _address = socket.recv_fds(line, _LONGEST, 1)
        except OSError:
            return None
    return (Path(os.fsdecode(home)), handles[0]) if handles else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
