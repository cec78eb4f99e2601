"""What the supervisor does once it is the one of its home: it answers on its control socket and keeps the machine running."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from modeldeploy.backends.local import wire
from modeldeploy.backends.local.begun import Begun, BegunFront
from modeldeploy.backends.local.machine import Machine, report
from modeldeploy.backends.local.paths import Paths, make_private
from modeldeploy.backends.local.state import Deployed
from modeldeploy.errors import BackendError, ConfigurationError, ModelDeployError
from modeldeploy.serving.files import write_file
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Traffic

_TICK_S = 1.0


class Server:
    """Answers the backends' questions."""

    def __init__(self, machine: Machine) -> None:
        self.stopping = asyncio.Event()
        self.asked = time.monotonic()
        self._machine = machine
        self._connections: set[asyncio.Task[Any]] = set()
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "put": self._put,
            "traffic": self._traffic,
            "drop": lambda ask: machine.drop(ask["endpoint"], ask["revision"]),
            "drop_endpoint": lambda ask: machine.drop_endpoint(ask["endpoint"]),
            "observe": self._observe,
            "window": lambda ask: machine.window(
                ask["endpoint"], ask["revision"], ask["since"], ask["until"], ask["share"]
            ),
            "processes": _soon(lambda _ask: machine.processes()),
            "warm": _soon(lambda ask: machine.warm(ask["python"], ask["flavour"])),
            "ping": _soon(lambda _ask: os.getpid()),
            "shutdown": self._shutdown,
        }

    async def _put(self, ask: dict[str, Any]) -> None:
        await self._machine.put(ask["endpoint"], ask["options"], from_json(Deployed, ask["deployed"]))

    async def _observe(self, ask: dict[str, Any]) -> dict[str, Any] | None:
        if "within" in ask:
            await self._machine.outcome(ask["endpoint"], ask["revision"], ask["within"])
        return self._machine.observe(ask["endpoint"])

    async def _traffic(self, ask: dict[str, Any]) -> dict[str, Any] | None:
        await self._machine.traffic(ask["endpoint"], from_json(Traffic, ask["traffic"]), ask["expect"])
        # What is seen afterwards, so that it need not be asked for.
        return self._machine.observe(ask["endpoint"])

    async def _shutdown(self, _ask: dict[str, Any]) -> int:
        self.stopping.set()
        return os.getpid()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, line by line."""
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                self.asked = time.monotonic()
                writer.write(wire.encode(await self._answer(line)))
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            ask = orjson.loads(line)
            return {"result": await self._command(ask["do"])(ask)}
        except ModelDeployError as error:
            return {"error": wire.from_error(error)}
        except Exception as error:  # noqa: BLE001 - one bad question must not end the supervisor
            report(f"internal error: {type(error).__name__}: {error}")
            return {"error": wire.from_error(BackendError(f"the supervisor failed: {type(error).__name__}: {error}"))}

    def _command(self, do: str) -> Callable[[dict[str, Any]], Awaitable[Any]]:
        command = self._commands.get(do)
        if command is None:
            message = f"the running supervisor does not know {do!r}"
            raise ConfigurationError(message, hint="another version of modeldeploy started it; shut it down")
        return command

    async def until_done(self, idle_exit: float, is_ours: Callable[[], bool]) -> None:
        """Wait until it is told to stop, has had nothing to do for ``idle_exit`` seconds, or its home was deleted."""
        busy = time.monotonic()
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _TICK_S)
            if not self._machine.idle:
                busy = time.monotonic()
            if time.monotonic() - max(busy, self.asked) > idle_exit:
                report("nothing to serve; ending")
                return
            if not is_ours():
                report("the state directory was deleted; ending")
                return


def _soon(answer: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    async def asynchronous(ask: dict[str, Any]) -> Any:
        return answer(ask)

    return asynchronous


def _is_ours(paths: Paths, lock: IO[bytes]) -> bool:
    """Whether the lock that we hold is still the one of this home: who deletes the directory lets another supervisor in."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), paths.lock.stat())
    except FileNotFoundError:
        return False


async def run(
    paths: Paths,
    idle_exit: float,
    lock: IO[bytes],
    *,
    begun: Mapping[tuple[str, str], Begun],
    front: BegunFront | None,
) -> None:
    """Serve a home whose lock we hold, until told to end or idle for so many seconds; what was begun is taken over."""
    runtime = make_private(paths.runtime())
    for stale in runtime.iterdir():
        stale.unlink()
    machine = Machine(paths, runtime, begun=begun, front=front)
    server = Server(machine)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stopping.set)
    control = _bind(runtime / "control")
    listening = await asyncio.start_unix_server(server.serve, sock=control, limit=wire.LINE_LIMIT)
    write_file(paths.info, orjson.dumps({"pid": os.getpid(), "control": str(runtime / "control")}))
    try:
        await server.until_done(idle_exit, functools.partial(_is_ours, paths, lock))
    finally:
        listening.close()
        if _is_ours(paths, lock) or not paths.info.exists():
            (runtime / "control").unlink(missing_ok=True)
            paths.info.unlink(missing_ok=True)
        await machine.close()
        with contextlib.suppress(OSError):
            runtime.rmdir()


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    return sock
