"""Starts worker processes: forked from a warm fork server where that works, else a fresh interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import orjson

from modeldeploy.backends.local.begun import Begun, begin
from modeldeploy.backends.local.environment import of_process
from modeldeploy.backends.local.forkserver import MESSAGE_LIMIT

# How long an order may take in a fork server that is up; one that is still loading its libraries is waited for.
_LOADING_S = 120.0


@attrs.frozen
class Order:
    """One worker to be started."""

    bundle: str
    socket: str
    name: str
    revision: str
    trust: tuple[str, ...]
    python: str
    flavour: str
    threads: int
    fork: bool


class Process:
    """A worker process: what it says, whether it lives, and the means to end it."""

    def __init__(self, pid: int, life: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.watcher: asyncio.Task[None] | None = None
        self.silent: asyncio.Future[None] | None = None
        """Done when nothing more can come from it."""
        self.said = ""
        """The last line that it wrote."""
        self._life = life

    def ended(self, code: int) -> None:
        """Take note of its end."""
        if not self.exited.done():
            self.exited.set_result(code)
        self.let_go()

    def let_go(self) -> None:
        """Close the pipe whose end tells the worker that nobody needs it."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1

    def signal(self, number: int) -> None:
        """Send a signal, unless the process is known to have ended."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self, grace: float) -> None:
        """Ask it to go; kill it when ``grace`` seconds pass."""
        self.signal(signal.SIGTERM)
        self.let_go()
        if (await asyncio.wait([self.exited], timeout=grace))[0]:
            return
        self.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        await asyncio.shield(self.exited)


class Launcher:
    """Starts workers, and keeps one fork server for each interpreter and flavour."""

    def __init__(self, report: Callable[[str], None], begun: Mapping[tuple[str, str], Begun] | None = None) -> None:
        self._report = report
        self._servers = {library: _ForkServer(each) for library, each in (begun or {}).items()}
        self._closing: list[_ForkServer] = []

    async def start(self, order: Order, *, ready: int, log: int) -> Process:
        """Start a worker that writes to the descriptors ``ready`` and ``log``; OSError when that is not possible."""
        life_read, life = os.pipe()
        try:
            return await self._start(order, [ready, life_read, log], life)
        except BaseException:
            os.close(life)
            raise
        finally:
            os.close(life_read)

    async def _start(self, order: Order, descriptors: list[int], life: int) -> Process:
        if order.fork and sys.platform == "linux":
            try:
                return await self.warm(order.python, order.flavour).start(order, descriptors, life)
            except (OSError, TimeoutError) as error:
                self._report(f"fork server for {order.flavour}: {error}; spawning instead")
        return await _spawn(order, descriptors, life)

    def warm(self, python: str, flavour: str) -> _ForkServer:
        """Find or start the fork server of an interpreter and a flavour."""
        server = self._servers.get((python, flavour))
        if server is None or server.gone:
            server = self._servers[python, flavour] = _ForkServer(begin(python, flavour))
        return server

    def keep_only(self, wanted: set[tuple[str, str]]) -> None:
        """End the fork servers that nobody needs any more."""
        for key in set(self._servers) - wanted:
            self._close(self._servers.pop(key))

    def _close(self, server: _ForkServer) -> None:
        server.close()
        self._closing = [*(each for each in self._closing if not each.ended), server]

    def pids(self) -> list[int]:
        """Name the fork servers."""
        return [server.pid for server in self._servers.values() if not server.gone]

    async def close(self) -> None:
        """End all fork servers."""
        self.keep_only(set())
        await asyncio.gather(*(server.wait() for server in self._closing))


class _ForkServer:
    """Our side of one fork server."""

    def __init__(self, begun: Begun) -> None:
        self.gone = False
        self.pid, self._control = begun
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, Process] = {}
        self._early: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()
        self._life = self._loop.create_task(self._live())
        self._loop.add_reader(self._control, self._readable)

    async def _live(self) -> None:
        await end_of(self.pid)
        self._fail("it ended")

    async def start(self, order: Order, descriptors: list[int], life: int) -> Process:
        number = next(self._numbers)
        answer = self._answers[number] = self._loop.create_future()
        fields = attrs.asdict(order, filter=lambda field, _value: field.name in _WORKER_FIELDS)
        if self.gone:
            message = "it ended"
            raise OSError(message)
        socket.send_fds(self._control, [orjson.dumps({"id": number, **fields})], descriptors)
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation that comes in the moment of the answer.
            async with asyncio.timeout(_LOADING_S):
                pid = await answer
        finally:
            self._answers.pop(number, None)
        process = Process(pid, life)
        self._children[pid] = process
        if pid in self._early:
            self._exited(pid, self._early.pop(pid))
        return process

    def _readable(self) -> None:
        try:
            data = self._control.recv(MESSAGE_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._fail("it closed its control socket")
            return
        message: dict[str, Any] = orjson.loads(data)
        if "exited" in message:
            self._exited(message["exited"], message["code"])
            return
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "pid" in message:
            answer.set_result(message["pid"])
        else:
            answer.set_exception(OSError(message["error"]))

    def _exited(self, pid: int, code: int) -> None:
        process = self._children.pop(pid, None)
        if process is None:  # it ended before its order's answer was looked at
            self._early[pid] = code
        else:
            process.ended(code)

    def _fail(self, why: str) -> None:
        """Take note of its end; its workers end with it, by the kernel's hand."""
        if not self.gone:
            self.gone = True
            self._loop.remove_reader(self._control)
            self._control.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(OSError(why))
        children, self._children = self._children, {}
        for process in children.values():
            process.signal(signal.SIGKILL)
            process.ended(-int(signal.SIGKILL))

    def close(self) -> None:
        """End it; it has no workers any more, and may be too busy loading libraries to see that nobody needs it."""
        if not self.gone:
            self._loop.remove_reader(self._control)
            self._control.close()
            self.gone = True
            if not self.ended:
                os.kill(self.pid, signal.SIGKILL)

    @property
    def ended(self) -> bool:
        """Whether its process has ended."""
        return self._life.done()

    async def wait(self) -> None:
        """Wait for its end."""
        await self._life


async def end_of(pid: int) -> int:
    """Wait for the end of a child of ours, and give its exit code."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # an old kernel, or not Linux
        return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 - it has ended


_WORKER_FIELDS = frozenset({"bundle", "socket", "name", "revision", "trust"})


async def _spawn(order: Order, descriptors: list[int], life: int) -> Process:
    ready, life_read, log = descriptors
    arguments = ["--bundle", order.bundle, "--socket", order.socket, "--name", order.name, "--revision", order.revision]
    for digest in order.trust:
        arguments += ["--trust", digest]
    child = await asyncio.create_subprocess_exec(
        order.python, "-P", "-m", "modeldeploy.serving.worker", *arguments,
        stdin=life_read, stdout=ready, stderr=log, env=of_process(order.threads),
    )  # fmt: skip
    process = Process(child.pid, life)

    async def wait() -> None:
        process.ended(await child.wait())

    process.watcher = asyncio.create_task(wait())
    return process
