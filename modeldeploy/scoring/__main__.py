"""The runner of one job: ``python -m modeldeploy.scoring JOB [LEASE]``, where LEASE is an inherited descriptor that holds it."""

from __future__ import annotations

import functools
import signal
import sys
from pathlib import Path

from modeldeploy.errors import ConflictError
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job
from modeldeploy.scoring.launch import Launched
from modeldeploy.scoring.processes import ProcessPool
from modeldeploy.scoring.runner import run
from modeldeploy.scoring.sharing import threads
from modeldeploy.values.ticket import Phase


def main(arguments: list[str]) -> int:
    """Run the job; 0 done, 1 failed or stopped, 2 somebody else runs it."""
    job = Job(Path(arguments[0]))
    try:
        lease = Lease(int(arguments[1])) if len(arguments) > 1 else Lease.take(job.lease)
    except ConflictError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return carry_out(job, lease)


def carry_out(job: Job, lease: Lease, early: Launched | None = None) -> int:
    """Run the job, with a worker that was started for it already, if there is one."""
    lease.sign()
    signal.signal(signal.SIGTERM, lambda _number, _frame: _stop(job))
    try:
        return 0 if run(job, functools.partial(_pool, early=early)) is Phase.SUCCEEDED else 1
    finally:
        lease.release()


def _pool(job: Job, seats: int, *, early: Launched | None) -> ProcessPool:
    return ProcessPool(job.home, seats, threads=threads(job.request().spec, seats), early=early)


def _stop(job: Job) -> None:
    """Begin no new part; when that was asked for already, wait for none either."""
    if job.stopping:
        raise SystemExit(1)
    job.interrupt()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
