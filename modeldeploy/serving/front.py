"""The front: one process that answers for every endpoint of a machine and never loads a model.

``python -m modeldeploy.serving.front --control FD --sockets FD --parent PID`` is started, or forked, by a supervisor and told by it, in lines of JSON,
which endpoints there are. Listening sockets come from the supervisor, which keeps them too: when the front dies, connections wait in the
kernel until the next one is there.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modeldeploy.serving.access import Access, Doors
from modeldeploy.serving.entrance import Entrance
from modeldeploy.serving.group import Group, Policy
from modeldeploy.serving.http import HttpServer, run
from modeldeploy.serving.lifeline import die_with_parent
from modeldeploy.serving.router import LIVE, READY, Router, Table
from modeldeploy.values.codec import from_json, to_json

if TYPE_CHECKING:
    from modeldeploy.serving.audit import AuditLog

RETIRED = "retired"
"""State of a revision that takes no new request and ends those it has."""

_LINE_LIMIT = 64 << 20
_SWITCH_S = 0.0005
_IN_ORDER = frozenset({"listen", "ask_back", "configure"})


class Front:
    """Does what the supervisor says; every command may be repeated."""

    def __init__(self, sockets: socket.socket, tell: Callable[[dict[str, Any]], None]) -> None:
        self._sockets = sockets
        self._tell = tell
        self._routers: dict[str, Router] = {}
        self._retired: dict[tuple[str, str], Group] = {}
        self._servers: dict[str, HttpServer] = {}
        self._audits: dict[str, AuditLog] = {}
        self._commands: dict[str, Callable[..., Awaitable[Any]]] = {
            "listen": self.listen,
            "ask_back": self.ask_back,
            "configure": self.configure,
            "drain": self.drain,
            "forget": self.forget,
            "window": self.window,
            "ping": self.ping,
        }

    async def obey(self, message: dict[str, Any]) -> None:
        """Carry out one command and report."""
        number = message.pop("id")
        try:
            result = await self._commands[message.pop("do")](**message)
            self._tell({"id": number, "result": result})
        except Exception as error:  # noqa: BLE001 - whatever it was, the supervisor must learn of it
            self._tell({"id": number, "error": f"{type(error).__name__}: {error}"})

    async def listen(self, endpoint: str, access: dict[str, Any] | None = None) -> None:
        """Serve an endpoint on the socket that lies ready in the socket channel; ``access`` holds from its first request on."""
        listener = self._receive()
        if endpoint in self._servers:
            listener.close()
            return
        router = self._routers.setdefault(endpoint, Router(endpoint))
        entrance = self._entrance(endpoint, from_json(Access, access or {}))
        server = self._servers[endpoint] = HttpServer(
            entrance.wrap(router.handle), gate=entrance.gate, steady=entrance.is_plain, lender=router.lend
        )
        await server.start(listener)

    def _entrance(self, endpoint: str, access: Access) -> Entrance:
        log = self._audits.get(access.audit)
        if access.audit and log is None:
            from modeldeploy.serving.audit import AuditLog

            log = self._audits[access.audit] = AuditLog(Path(access.audit))
        return Entrance(access, endpoint=endpoint, doors=Doors(health=LIVE | READY), log=log)

    def _receive(self) -> socket.socket:
        # One byte and one descriptor for each "listen", in the same order.
        _data, descriptors, _flags, _address = socket.recv_fds(self._sockets, 1, 1)
        listener = socket.socket(fileno=descriptors[0])
        listener.setblocking(False)  # noqa: FBT003 - the signature of the standard library
        return listener

    async def ask_back(self, endpoint: str) -> None:
        """Ask for the clients of an endpoint whose table is about to change; the "configure" that follows finds them back."""
        if endpoint in self._routers:
            self._routers[endpoint].ask_back()

    async def configure(
        self,
        endpoint: str,
        weights: dict[str, int],
        *,
        shadow: dict[str, int],
        key: str,
        stable: str | None,
        safe_canary: bool,
        revisions: dict[str, dict[str, Any]],
    ) -> None:
        """Make one endpoint what the arguments say: its groups, their workers, its table."""
        router = self._routers.setdefault(endpoint, Router(endpoint))
        await router.recall()
        for revision, wanted in revisions.items():
            if wanted["state"] == RETIRED:
                self._retire(router, revision)
            else:
                await self._put_group(router, revision, wanted)
        # The new table first, then the groups that it no longer names.
        router.safe_canary = safe_canary
        router.install(Table.of(weights, stable, shadow, key))
        for revision in set(router.groups) - set(revisions):
            router.groups.pop(revision).close()
        for each in [each for each in self._retired if each[0] == endpoint and each[1] not in revisions]:
            self._retired.pop(each).close()
        router.lends = True

    def _retire(self, router: Router, revision: str) -> None:
        group = router.groups.pop(revision, None)
        if group is not None:
            self._retired[router.endpoint, revision] = group

    async def _put_group(self, router: Router, revision: str, wanted: dict[str, Any]) -> None:
        group = router.groups.get(revision)
        if group is None:
            policy = from_json(Policy, wanted["policy"])
            group = Group(revision, policy, router.meter(revision), report=self._report(router.endpoint))
            router.groups[revision] = group
        group.broken = wanted["broken"]
        group.meter.lines_dropped = wanted["lines_dropped"]
        workers: dict[str, str] = wanted["workers"]
        for worker in wanted["leaving"]:
            group.release(worker)
        for worker in set(group.links) - set(workers):
            group.drop(worker)
        for worker in set(workers) - set(group.links):
            try:
                await group.connect(worker, workers[worker])
            except OSError:  # it died in this moment, or has no room for us: the supervisor knows, and tells us again
                self._report(router.endpoint)("lost", worker)

    def _report(self, endpoint: str) -> Callable[[str, str], None]:
        return lambda event, worker: self._tell({"event": event, "endpoint": endpoint, "worker": worker})

    async def drain(self, endpoint: str, revision: str, grace: float) -> bool:
        """Wait until a retired revision has answered what it was given."""
        group = self._retired.get((endpoint, revision))
        if group is None:
            return True
        drained = await group.drained(grace)
        if drained:
            group.close()  # its workers end now, and that is no failure of theirs
        return drained

    async def forget(self, endpoint: str, grace: float) -> None:
        """End an endpoint: answer what is in flight, then close its connections."""
        server = self._servers.pop(endpoint, None)
        if server is not None:
            await self._routers[endpoint].recall()
            # At one moment with the drain, so that whoever learns of the end is told that the connection ends as well.
            self._routers[endpoint].ending = True
            await server.drain(grace)
        router = self._routers.pop(endpoint, None)
        groups = list(router.groups.values()) if router else []
        for key in [key for key in self._retired if key[0] == endpoint]:
            groups.append(self._retired.pop(key))
        for group in groups:
            group.close()

    async def window(self, endpoint: str, revision: str, since: float, until: float, share: int | None = None) -> Any:
        """Read a meter."""
        router = self._routers.setdefault(endpoint, Router(endpoint))
        router.harvest()
        return to_json(router.meter(revision).window(since, until, share=share))

    def close(self) -> None:
        """Write out what the audit logs hold."""
        for log in self._audits.values():
            log.close()

    async def ping(self) -> None:
        """Show that the loop turns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program."""
    import argparse

    parser = argparse.ArgumentParser(prog="modeldeploy.serving.front")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--sockets", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args(argv)
    die_with_parent(arguments.parent)
    return serve(arguments.control, arguments.sockets)


def serve(control: int, sockets: int) -> int:
    """Serve until the supervisor's side of the control channel closes; ``control`` and ``sockets`` are descriptors."""
    # The supervisor ends us, after the requests in flight; a signal to the whole group, as from a terminal or a service manager, must not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Answers of shadows are decoded in a thread; requests must not wait 5 ms for it to let go of Python's lock.
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()
    return run(_serve(control, sockets))


async def _serve(control: int, sockets: int) -> int:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=control), limit=_LINE_LIMIT)

    def tell(message: dict[str, Any]) -> None:
        writer.write(orjson.dumps(message) + b"\n")

    with socket.socket(fileno=sockets) as channel:
        front = Front(channel, tell)
        await _obey(front, reader)
        front.close()
    writer.close()
    return 0


async def _obey(front: Front, reader: asyncio.StreamReader) -> None:
    """Read commands; those of ``_IN_ORDER`` take effect in the order they came, waiting ones do not hold up others."""
    waiting: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        message = orjson.loads(line)
        if message["do"] in _IN_ORDER:
            await front.obey(message)
            continue
        task = asyncio.create_task(front.obey(message))
        waiting.add(task)
        task.add_done_callback(waiting.discard)


if __name__ == "__main__":
    raise SystemExit(main())
