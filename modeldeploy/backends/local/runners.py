"""The processes that run batch jobs: detached, each with the job's lease in hand, and one that begins before its job is known."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO, Self

from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Request
from modeldeploy.scoring.launch import KEEP_MEMORY
from modeldeploy.scoring.sharing import first


class Early:
    """A runner that imports what it needs, and lets the model be loaded, while the job is checked; it writes nothing and ends by itself."""

    def __init__(self, request: Request) -> None:
        shape = first(request.spec)
        worker = [] if shape is None else [request.charge(), *map(str, shape)]
        command = [sys.executable, "-m", "modeldeploy.scoring.early", *worker]
        self._line, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as log:
            _start(command, log, stdin=theirs.fileno(), environ=KEEP_MEMORY if worker else {})
        weakref.finalize(self, self._line.close)

    @classmethod
    def of(cls, request: Request) -> Self | None:
        """Start one; None where a lease cannot be handed over (Windows), or where something is lacking."""
        if not hasattr(socket, "send_fds"):
            return None
        try:
            return cls(request)
        except OSError:
            return None

    def take(self, job: Job, lease: Lease) -> bool:
        """Let it run the job; False when it has ended already."""
        with self._line:
            try:
                socket.send_fds(self._line, [os.fsencode(job.home.absolute())], [lease.handle])
            except OSError:
                return False
        return True

    def dismiss(self) -> None:
        """Let it end."""
        self._line.close()


def spawn(job: Job, lease: Lease, early: Early | None = None) -> None:
    """Let a runner hold the lease from its first moment, in a session of its own."""
    try:
        if early is None or not early.take(job, lease):
            _run(job, lease)
    finally:
        lease.release()


def terminate(job: Job) -> None:
    """Ask the runner of a job to stop, if there is one."""
    runner = Lease.holder(job.lease)
    if runner is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(runner, signal.SIGTERM)


def _run(job: Job, lease: Lease) -> None:
    command = [sys.executable, "-m", "modeldeploy.scoring", str(job.home)]
    with job.log.open("ab") as log:
        if os.name == "nt":
            _start(command, log)
        else:
            _start([*command, str(lease.handle)], log, inherits=(lease.handle,))


def _start(
    command: list[str],
    log: IO[bytes],
    *,
    stdin: int = subprocess.DEVNULL,
    inherits: tuple[int, ...] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
) -> None:
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=log,
        stderr=log,
        pass_fds=inherits,
        start_new_session=True,
        env={**environ, **os.environ},
    )
    # Somebody must take note of its end, or it stays a zombie as long as this process lives.
    threading.Thread(target=process.wait, name="runner of a batch job", daemon=True).start()
