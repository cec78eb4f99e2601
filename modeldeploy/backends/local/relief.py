"""Workers that have grown too large are relieved: the next one is ready first, then the old one finishes what it has and ends."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy.backends.local.launcher import Process

if TYPE_CHECKING:
    from modeldeploy.backends.local.fleet import Replicas

_LOOK_S = 0.5
_GRACE_S = 5.0
_MEGABYTE = 1_000_000


class Relief:
    """Watches the memory of one revision's workers; without a limit it does nothing."""

    def __init__(self, replicas: Replicas) -> None:
        self.due: dict[str, Process] = {}
        """Workers that serve until another one is ready."""
        self.leaving: set[str] = set()
        """Workers that finish what they have."""
        self._replicas = replicas
        self._limit = replicas.options.max_memory_mb * _MEGABYTE
        self._tasks: set[asyncio.Task[None]] = set()

    async def outgrows(self, worker: str, process: Process) -> bool:
        """Wait until a worker ended, or has outgrown its limit and is to be relieved; whether it was the latter."""
        if not self._limit:
            return False
        if resident(process.pid) > self._limit:
            limit = self._limit // _MEGABYTE
            self._replicas.say(f"max_memory_mb={limit} is less than a worker takes from the start; it is not heeded")
            return False
        while not process.exited.done():
            await asyncio.wait([process.exited], timeout=_LOOK_S)
            if resident(process.pid) > self._limit and not process.exited.done():
                self._replicas.say(f"worker {process.pid} has outgrown {self._limit // _MEGABYTE} MB; relieving it")
                self.due[worker] = process
                process.exited.add_done_callback(lambda _exited: self._gone(worker))
                return True
        return False

    def arrived(self) -> None:
        """Let the worker go that has been due for longest: another one is ready."""
        if self.due:
            worker = next(iter(self.due))
            task = asyncio.create_task(self._let_go(worker, self.due[worker]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _let_go(self, worker: str, process: Process) -> None:
        del self.due[worker]
        address = self._replicas.addresses.get(worker, "")
        self.leaving.add(worker)
        self._replicas.forget(worker, address)
        await self._replicas.tell()  # from here on it is given nothing more
        process.signal(signal.SIGTERM)
        await asyncio.wait([process.exited], timeout=self._replicas.options.deadline)
        await process.end(_GRACE_S)
        self._gone(worker)

    def _gone(self, worker: str) -> None:
        self.due.pop(worker, None)
        self.leaving.discard(worker)
        self._replicas.forget(worker, self._replicas.addresses.get(worker, ""))

    async def stop(self) -> None:
        """Wait for nobody any more; who is still there is ended with the others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def resident(pid: int) -> int:
    """Read the resident memory of a process in bytes; 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
