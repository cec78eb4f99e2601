"""What a tree of processes costs: CPU time, memory, and what other programs took meanwhile. Linux only.

The measuring process adopts orphans, so whatever it starts stays below it, however often it forks and detaches.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs

PR_SET_CHILD_SUBREAPER = 36
CPUCLOCK_SCHED = 2  # linux/posix-timers: all threads of a process, in nanoseconds
TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
GRACE_S = 10.0


def adopt_orphans() -> None:
    """Become the parent of every process below whose own parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@attrs.frozen
class Process:
    pid: int
    parent: int
    state: str
    waited: float
    """CPU seconds of its children that have ended."""

    @classmethod
    def read(cls, pid: int) -> Self | None:
        try:
            text = (PROC / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = text.rpartition(") ")[2].split()  # the name before it may hold anything
        return cls(pid, int(fields[1]), fields[0], (int(fields[13]) + int(fields[14])) / TICKS)

    def own(self) -> float:
        """CPU seconds of all its threads."""
        try:
            return time.clock_gettime((~self.pid << 3) | CPUCLOCK_SCHED)
        except OSError:  # it has just ended
            return 0.0

    def cpu(self) -> float:
        """Its own CPU seconds and those of its children that have ended."""
        return self.own() + self.waited

    def pss(self) -> int:
        """Bytes of its memory, shared pages divided among those who share them."""
        try:
            text = (PROC / str(self.pid) / "smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def everything() -> list[Process]:
    pids = [int(each.name) for each in PROC.iterdir() if each.name.isdigit()]
    return [process for process in map(Process.read, pids) if process is not None]


def below(root: int | None = None, among: list[Process] | None = None) -> list[Process]:
    """Every process that descends from ``root``, by default from this one."""
    children: dict[int, list[Process]] = {}
    for process in everything() if among is None else among:
        children.setdefault(process.parent, []).append(process)
    found, waiting = [], [os.getpid() if root is None else root]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += [process.pid for process in new]
    return found


def pss() -> int:
    """Bytes of all processes below this one."""
    return sum(process.pss() for process in below())


@attrs.frozen
class Reading:
    """CPU seconds since boot: of what runs or ran below this process, and of each process that is neither it nor below it."""

    at: float
    tree: float
    others: dict[int, tuple[float, float]]
    """Its own, and those of its children that have ended."""
    stolen: float

    @classmethod
    def take(cls) -> Self:
        known = everything()
        ours = below(among=known)
        mine = {os.getpid(), *(process.pid for process in ours)}
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        tree = sum(process.cpu() for process in ours) + ended.ru_utime + ended.ru_stime
        others = {process.pid: (process.own(), process.waited) for process in known if process.pid not in mine}
        stolen = int((PROC / "stat").read_text().split(maxsplit=9)[8]) / TICKS
        return cls(time.perf_counter(), tree, others, stolen)

    def foreign_since(self, before: Self) -> float:
        """Cores that other programs and other machines of the host took, on average."""
        took, ended = 0.0, 0.0
        for pid, (own, waited) in self.others.items():
            own_before, waited_before = before.others.get(pid, (0.0, 0.0))
            took += max(0.0, own - own_before)
            ended += waited - waited_before
        # What ended has become its parent's, with all that it had taken before; unless nobody waited for it.
        ended -= sum(sum(before.others[pid]) for pid in before.others.keys() - self.others.keys())
        return (took + max(0.0, ended) + self.stolen - before.stolen) / (self.at - before.at)


@attrs.define
class Peak:
    """The most memory that the tree had at once, looked at ten times a second."""

    bytes: int = 0

    @contextlib.contextmanager
    def watch(self, every: float = 0.1) -> Iterator[Self]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(every):
                self.bytes = max(self.bytes, pss())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()


def end_all(grace: float = GRACE_S) -> list[int]:
    """End every process below this one; give those that had to be killed."""
    _signal_all(signal.SIGTERM)
    if wait_for_none(grace):
        return []
    killed = _signal_all(signal.SIGKILL)
    wait_for_none(grace)
    return killed


def wait_for_none(seconds: float) -> bool:
    """Wait until nothing runs below this process; False when that took too long."""
    deadline = time.monotonic() + seconds
    while _living():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _living() -> list[Process]:
    """Name what runs; what has ended and was adopted is let go."""
    known = below()
    for process in known:
        if process.state == "Z" and process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return [process for process in known if process.state != "Z"]


def _signal_all(number: int) -> list[int]:
    pids = [process.pid for process in _living()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids
