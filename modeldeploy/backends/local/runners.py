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
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Self

from modeldeploy.scoring.launch import KEEP_MEMORY

if TYPE_CHECKING:
    from modeldeploy.scoring.durable import Lease
    from modeldeploy.scoring.job import Job, Request

_PATIENCE_S = 30.0
_begun: ContextVar[Early | None] = ContextVar("runner of a job that is expected", default=None)


class Early:
    """A runner that imports what it needs before its job is known; told one, it looks at it and lets the model be loaded.

    It writes nothing before it is given the job's lease, and ends by itself when whoever began it lets go.
    """

    def __init__(self, workers: int) -> None:
        self._line, theirs = socket.socketpair()
        command = [sys.executable, "-m", "modeldeploy.scoring.early", str(workers)]
        with theirs, tempfile.TemporaryFile() as log:
            _start(command, log, stdin=theirs.fileno(), environ=KEEP_MEMORY)
        self._line.settimeout(_PATIENCE_S)
        self._agrees: bool | None = None
        weakref.finalize(self, self._line.close)

    @classmethod
    def begin(cls, workers: int) -> Self | None:
        """Start one; None where a lease cannot be handed over (Windows), or where something is lacking."""
        if not hasattr(socket, "send_fds"):
            return None
        try:
            return cls(workers)
        except OSError:
            return None

    @classmethod
    def told(cls, request: Request) -> Early | None:
        """Give one that knows the job: the one that was begun for it, or a new one."""
        early = _begun.get() or cls.begin(request.spec.workers)
        _begun.set(None)
        if early is not None and early.tell(request):
            return early
        return None

    def tell(self, request: Request) -> bool:
        """Say what the job is, and the shape of the worker of a large one; False when it has ended already."""
        import orjson

        from modeldeploy.scoring.sharing import first

        shape = first(request.spec)
        told = {"request": request.document().decode(), "shape": shape and list(shape)}
        try:
            self._line.sendall(orjson.dumps(told) + b"\n")
        except OSError:
            self._line.close()
            return False
        return True

    def agrees(self) -> bool:
        """Wait until it has looked at the job; False when it found something wrong, or died."""
        if self._agrees is None:
            try:
                self._agrees = bool(self._line.recv(1))
            except OSError:
                self._agrees = False
        return self._agrees

    def take(self, job: Job, lease: Lease) -> bool:
        """Let it run the job; False when it has ended already."""
        with self._line:
            # Not before it has read the request, which it must not take for one with this.
            if not self.agrees():
                return False
            try:
                socket.send_fds(self._line, [os.fsencode(job.home.absolute())], [lease.handle])
            except OSError:
                return False
        return True

    def dismiss(self) -> None:
        """Let it end."""
        self._line.close()


@contextlib.contextmanager
def expected(workers: int) -> Iterator[None]:
    """Begin a runner for the job that is asked for in this context; it ends with it, unless a job was told to it."""
    early = Early.begin(workers)
    before = _begun.set(early)
    try:
        yield
    finally:
        unused = _begun.get()
        _begun.reset(before)
        if unused is not None:
            unused.dismiss()


def spawn(job: Job, lease: Lease, early: Early | None = None) -> None:
    """Let a runner hold the lease from its first moment, in a session of its own."""
    try:
        if early is None or not early.take(job, lease):
            _run(job, lease)
    finally:
        lease.release()


def terminate(job: Job) -> None:
    """Ask the runner of a job to stop, if there is one."""
    from modeldeploy.scoring.durable import Lease

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
