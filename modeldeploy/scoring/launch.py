"""How a process that scores is started; it imports little, for it is the first thing that a runner does."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess

    from modeldeploy.scoring.forking import Forked

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# A chunk's arrays are freed and wanted again for each chunk. The C library of Linux would give them back to the system each time,
# which then clears every page anew: half of the processor time of a cheap model.
# One arena for all threads, since those of other threads have other limits; and Arrow takes its memory there, for its own allocator gives it
# back whatever it is told. Heeded only by a process that is started with them.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class Shape(NamedTuple):
    """What a process that scores is like."""

    seats: int
    """Threads that score at the same time."""
    share: int
    """Threads that the model's own library may use for each call."""


class Launched(NamedTuple):
    """A process that loads the model ``charge``, a document of JSON that ``Request.charge`` gives."""

    process: subprocess.Popen[bytes] | Forked
    charge: str
    shape: Shape

    def fits(self, charge: str, shape: Shape) -> bool:
        """Whether it is at work, and the one that is wanted."""
        return (self.charge, self.shape) == (charge, shape) and self.process.poll() is None

    def end(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()


def launch(charge: str, shape: Shape) -> Launched:
    """Start a process that loads the model; it is told the job by the first line on its stdin."""
    import subprocess

    environ = {**KEEP_MEMORY, **_settings(shape.share), **os.environ}
    command = [sys.executable, "-m", "modeldeploy.scoring.worker", charge, str(shape.seats)]
    return Launched(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ), charge, shape
    )


@contextlib.contextmanager
def settled(share: int) -> Iterator[None]:
    """Let libraries that are loaded meanwhile find the settings of a process that scores, with so many threads for each call."""
    ours = {name: value for name, value in _settings(share).items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _settings(share: int) -> dict[str, str]:
    return {**dict.fromkeys(_THREADS, str(share)), "ORT_DISABLE_TELEMETRY": "1"}


def go_on_in(log: Path, *, stdout: bool) -> None:
    """Let what this process says from now on go to a job's log, with what it said into a file before the job was known."""
    said = os.fstat(2)
    with log.open("ab", buffering=0) as file:
        if stat.S_ISREG(said.st_mode) and not os.path.samestat(said, os.fstat(file.fileno())):
            file.write(os.pread(2, said.st_size, 0))
            for each in (1, 2) if stdout else (2,):
                os.dup2(file.fileno(), each)
