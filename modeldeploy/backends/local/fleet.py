"""The workers of one revision: started, watched, replaced with back-off, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.backends.local.launcher import Launcher, Order, Process
from modeldeploy.backends.local.logs import LogFile
from modeldeploy.backends.local.options import RevisionOptions
from modeldeploy.backends.local.relief import Relief
from modeldeploy.backends.local.state import Deployed
from modeldeploy.serving import link, sink
from modeldeploy.serving.breaker import CRASHES, Breaker

# A worker that served this long was sound: its end starts the back-off anew.
_HEALTHY_S = 5.0
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 10.0
# A worker that had loaded its model is soon replaced however often that happens: callers wait for it.
_LONGEST_WAIT_SERVED_S = 1.0
# A new revision may die this often before it said why; then it has failed.
_TRIES = 3
_WORKER_GRACE_S = 5.0
# What a worker wrote last may be read a moment after its end; a child that it left may hold the pipe for ever.
_LAST_WORDS_S = 1.0
_LAST_WORDS = 500
# Losses are told to the front, which shows them, not more often than this.
_TELL_LOST_S = 0.5


class LoadError(Exception):
    """A worker could not load its model; the text says why."""


def back_off(failures: int, longest: float = _LONGEST_WAIT_S) -> float:
    """Give the seconds to wait before start number ``failures + 1``; the first restart is immediate."""
    return 0.0 if failures <= 1 else min(longest, _FIRST_WAIT_S * 2.0 ** (failures - 2))


class Replicas:
    """Keeps ``revision.scale.workers`` workers of one revision alive."""

    def __init__(
        self,
        endpoint: str,
        deployed: Deployed,
        options: RevisionOptions,
        launcher: Launcher,
        *,
        log: LogFile,
        runtime: Path,
        number: Callable[[], int],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self.endpoint = endpoint
        self.deployed = deployed
        self.options = options
        self.proven = deployed.proven
        self.failed = ""
        """Why it will not be tried again, or empty."""
        self.trouble = ""
        """What went wrong last, or empty."""
        self.addresses: dict[str, str] = {}
        """Workers that are ready, by their number, and where they listen."""
        self.processes: dict[str, Process] = {}
        self.retired = False
        self.lines_dropped = 0
        """Lines of its workers that were lost, as far as the front was told."""
        self.breaker = Breaker()
        self.relief = Relief(self)
        self._launcher = launcher
        self._log = log
        self._runtime = runtime
        self._number = number
        self._changed = changed
        self._slots: list[asyncio.Task[None]] = []
        self._telling = False

    @property
    def starting(self) -> bool:
        """Whether it was never complete and may still become so."""
        return not self.proven and not self.failed

    @property
    def ready(self) -> bool:
        """Whether requests would be answered now; a new revision only once all of its workers are there."""
        return self.proven and bool(self.addresses)

    @property
    def note(self) -> str:
        """Say why it is not ready, or that its workers die again and again."""
        if self.ready:
            return f"{CRASHES} workers died within a minute; see its log" if self.breaker.open else ""
        return self.failed or self.trouble or "loading the model"

    @property
    def library(self) -> tuple[str, str]:
        """The interpreter and the flavour: what a fork server is made for."""
        return self.deployed.python, self.deployed.revision.model.flavour

    def start(self) -> None:
        """Start every worker."""
        workers = self.deployed.revision.scale.workers
        self._slots = [asyncio.create_task(self._keep()) for _slot in range(workers)]

    async def stop(self) -> None:
        """End every worker."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, self.relief.stop(), return_exceptions=True)
        await asyncio.gather(*(process.end(_WORKER_GRACE_S) for process in list(self.processes.values())))
        self._log.close()

    def kill(self, worker: str) -> None:
        """End a worker that hangs; it is replaced."""
        process = self.processes.get(worker)
        if process is not None:
            self._say(process.pid, "did not answer within the deadline; replacing it")
            process.signal(signal.SIGKILL)

    async def _keep(self) -> None:
        failures = 0
        while not self.failed:
            began, longest = time.monotonic(), _LONGEST_WAIT_S
            try:
                code = await self._live()
            except LoadError as error:
                self._trouble(str(error), final=not self.proven)
            except ChildProcessError as error:
                self._trouble(str(error), final=False)
            except OSError as error:
                self._trouble(f"no worker could be started: {error}", final=False)
            else:
                if code is None:  # it has grown too large; the next one relieves it
                    failures = 0
                    continue
                self._died(code)
                longest = _LONGEST_WAIT_SERVED_S
                if time.monotonic() - began > _HEALTHY_S:
                    failures = 0
            failures += 1
            if not self.proven and failures >= _TRIES and not self.failed:
                self._trouble(f"{self.trouble}, {failures} times; see {str(self._log.path)!r}", final=True)
            await asyncio.sleep(back_off(failures, longest))

    def _died(self, code: int) -> None:
        self.breaker.crashed()
        self._trouble(f"a worker ended with {_describe(code)}", final=False)
        if self.breaker.open:
            self.say(f"{CRASHES} workers died within a minute")

    def _trouble(self, text: str, *, final: bool) -> None:
        self.trouble = text
        self.say(text)
        if final:
            self.failed = text
        self._changed()

    async def _live(self) -> int | None:
        """Take one worker from start to end; give its exit code, or None when it serves on until another one relieves it."""
        worker = str(self._number())
        address = str(self._runtime / f"{os.getpid()}.{worker}")
        process: Process | None = None
        try:
            process, ready = await self._launch(address, worker)
            await self._until_ready(process, ready)
            self._arrived(worker, address)
            if await self.relief.outgrows(worker, process):
                return None
            return await asyncio.shield(process.exited)
        finally:
            if worker not in self.relief.due:
                self.forget(worker, address)

    def forget(self, worker: str, address: str) -> None:
        """Strike a worker off the lists; on cancellation its process stays, for stop() to end it."""
        process = self.processes.get(worker)
        if process is None or process.exited.done():
            self.processes.pop(worker, None)
        if self.addresses.pop(worker, None) is not None:
            self._changed()
        with contextlib.suppress(OSError):
            link.remove(address)

    async def _launch(self, address: str, worker: str) -> tuple[Process, asyncio.Future[dict[str, Any]]]:
        ready_read, ready_write = os.pipe()
        log_read, log_write = os.pipe()
        try:
            process = await self._launcher.start(self._order(address), ready=ready_write, log=log_write)
        except BaseException:
            os.close(ready_read)
            os.close(log_read)
            raise
        finally:
            os.close(ready_write)
            os.close(log_write)
        self.processes[worker] = process
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        process.silent = await _read_lines(log_read, lambda text: self._take_down(process, text))
        await _read_lines(ready_read, lambda text: self._hear(process.pid, text, ready))
        return process, ready

    def _order(self, address: str) -> Order:
        revision = self.deployed.revision
        return Order(
            bundle=revision.model.uri,
            socket=address,
            name=self.endpoint,
            revision=revision.id,
            trust=self.deployed.trust,
            python=self.deployed.python,
            flavour=revision.model.flavour,
            threads=self.options.threads,
            fork=self.options.forks,
        )

    def _hear(self, pid: int, text: str, ready: asyncio.Future[dict[str, Any]]) -> None:
        """Tell the ready line from whatever else a model prints."""
        if not ready.done() and text.startswith('{"ready"'):
            with contextlib.suppress(orjson.JSONDecodeError):
                ready.set_result(orjson.loads(text))
                return
        self._say(pid, text)

    async def _until_ready(self, process: Process, ready: asyncio.Future[dict[str, Any]]) -> None:
        limit = self.options.start_timeout
        waiting: set[asyncio.Future[object]] = {ready, process.exited}  # type: ignore[arg-type]  # results differ
        await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done() and process.exited.done():
            await asyncio.sleep(0)  # what it wrote last may be read in this very turn
        if ready.done():
            self._judge(process.pid, ready.result())
        elif process.exited.done():
            raise ChildProcessError(await _last_words(process))
        else:
            process.signal(signal.SIGKILL)
            message = f"the model was not loaded after {limit:g} s; the option start_timeout gives it more"
            raise LoadError(message)

    def _judge(self, pid: int, said: dict[str, Any]) -> None:
        if said["ready"]:
            return
        for line in said.get("traceback", "").splitlines():
            self._say(pid, line)
        error = said.get("error") or "the model could not be loaded"
        message = f"{error}; its traceback is in {str(self._log.path)!r}"
        raise LoadError(message)

    def _arrived(self, worker: str, address: str) -> None:
        self.addresses[worker] = address
        self.trouble = ""
        if len(self.addresses) == self.deployed.revision.scale.workers:
            self.proven = True
        self._changed()
        self.relief.arrived()

    def _take_down(self, process: Process, text: str) -> None:
        lost = sink.lost(text)
        if lost:
            self._log.dropped += lost
        process.said = text.strip() or process.said
        self._say(process.pid, text)

    def _say(self, pid: int, text: str) -> None:
        self._log.write(f"worker {pid}: {text}")
        if self._log.dropped != self.lines_dropped and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(_TELL_LOST_S, self._tell_lost)

    async def tell(self) -> None:
        """Have the front know what is here now."""
        await self._changed()

    def say(self, text: str) -> None:
        """Write a line of the supervisor's own into the log of the revision."""
        self._log.write(f"supervisor: {text}")

    def _tell_lost(self) -> None:
        self._telling = False
        self.lines_dropped = self._log.dropped
        self._changed()


async def _last_words(process: Process) -> str:
    """Say how a worker ended that told nothing of its model, and what it wrote last."""
    if process.silent is not None:
        await asyncio.wait([process.silent], timeout=_LAST_WORDS_S)
    said = f", after it wrote {process.said[:_LAST_WORDS]!r}" if process.said else ""
    return f"a worker ended with {_describe(process.exited.result())} while it loaded the model{said}"


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


class _Lines(asyncio.Protocol):
    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))
        if len(self._rest) > _LONGEST_LINE:
            self._take(self._rest.decode(errors="replace"))
            self._rest = b""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop passes it
        if self._rest:
            self._take(self._rest.decode(errors="replace"))
        if not self.ended.done():
            self.ended.set_result(None)


_LONGEST_LINE = 1 << 20


async def _read_lines(fd: int, take: Callable[[str], None]) -> asyncio.Future[None]:
    """Take every line until the other side closes; what it gives is done then."""
    stream = os.fdopen(fd, "rb", buffering=0)
    _transport, lines = await asyncio.get_running_loop().connect_read_pipe(lambda: _Lines(take), stream)
    return lines.ended


def prove(deployed: Deployed) -> Deployed:
    """Note that a revision was ready once."""
    return attrs.evolve(deployed, proven=True)
