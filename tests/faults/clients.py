"""Clients in a process of their own, so that what they cost is not measured with the server: ``clients.py MODE PORT OPTIONS``.

``paced`` is an open loop: requests are sent when they are due, whether or not the ones before are answered, and their latency counts from
when they were due. ``flood`` keeps connections full of pipelined requests until so many are answered. The result is JSON on one line.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys
from typing import Any

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


def request(path: str, body: str, headers: dict[str, str]) -> bytes:
    data = body.encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(data)}",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _END + data


class Client(asyncio.Protocol):
    """One kept-alive connection; ``answered(status, head)`` is called for each answer, with status 0 when the connection ends."""

    def __init__(self, answered: Any) -> None:
        self._answered = answered
        self._data = b""
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            head = self._data[:end].lower()
            start = head.find(_LENGTH) + len(_LENGTH)
            length = int(head[start:].split(b"\r\n", 1)[0])
            if len(self._data) < end + len(_END) + length:
                return
            self._data = self._data[end + len(_END) + length :]
            self._answered(self, int(head[9:12]), head)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self._answered(self, 0, b"")


class Paced:
    """Sends at a rate over as many connections as it takes."""

    def __init__(self, port: int, options: dict[str, Any]) -> None:
        self._port = port
        self._rate, self._seconds = options["rate"], options["seconds"]
        self._data = [request(options["path"], body, options.get("headers", {})) for body in options["bodies"]]
        self._idle: collections.deque[Client] = collections.deque()
        self._due: dict[Client, float] = {}
        self._number = -1
        self.results: list[list[float]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> list[list[float]]:
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        began, number = loop.time(), 0
        while (due := number / self._rate) < self._seconds:
            await asyncio.sleep(max(0.0, began + due - loop.time()))
            task = asyncio.create_task(self._send(self._data[number % len(self._data)], began + due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
        self._number = number
        self._finish()
        await self._done
        for client in self._idle:
            client.transport.abort()
        return self.results

    async def _send(self, data: bytes, due: float) -> None:
        loop = asyncio.get_running_loop()
        client = None
        while self._idle and (client is None or client.ended):
            client = self._idle.pop()
        if client is None or client.ended:
            try:
                _transport, client = await loop.create_connection(
                    lambda: Client(self._answered), "127.0.0.1", self._port
                )
            except OSError:
                self._note(due, 0, b"")
                return
        self._due[client] = due
        client.transport.write(data)

    def _answered(self, client: Client, status: int, head: bytes) -> None:
        due = self._due.pop(client, None)
        if due is not None:
            self._note(due, status, head)
        if status and b"connection: close" not in head:
            self._idle.append(client)

    def _note(self, due: float, status: int, head: bytes) -> None:
        latency = asyncio.get_running_loop().time() - due
        self.results.append([latency, status, b"retry-after: " in head])
        self._finish()

    def _finish(self) -> None:
        if len(self.results) == self._number and not self._done.done():
            self._done.set_result(None)


class Flood:
    """Keeps every connection full of requests."""

    def __init__(self, port: int, options: dict[str, Any]) -> None:
        self._port = port
        self._left = options["requests"]
        self._connections = options["connections"]
        self._bursts = [
            (len(bodies), b"".join(request(options["path"], body, {}) for body in bodies))
            for bodies in options["bursts"]
        ]
        self._sent = 0
        self._waiting: collections.Counter[Client] = collections.Counter()
        self.statuses: collections.Counter[int] = collections.Counter()

    async def run(self) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        for _each in range(self._connections):
            _transport, client = await loop.create_connection(lambda: Client(self._answered), "127.0.0.1", self._port)
            self._fill(client)
        await self._done
        return {str(status): count for status, count in self.statuses.items()}

    def _fill(self, client: Client) -> None:
        count, data = self._bursts[self._sent % len(self._bursts)]
        self._sent += 1
        self._waiting[client] = count
        client.transport.write(data)

    def _answered(self, client: Client, status: int, _head: bytes) -> None:
        if self._done.done():
            return
        self.statuses[status] += 1
        self._left -= 1
        self._waiting[client] -= 1
        if self._left <= 0:
            self._done.set_result(None)
        elif not status:
            self._done.set_exception(ConnectionError("a connection ended"))
        elif not self._waiting[client]:
            self._fill(client)


MODES = {"paced": Paced, "flood": Flood}


async def main(mode: str, port: str, options: str) -> None:
    print(json.dumps(await MODES[mode](int(port), json.loads(options)).run()))  # noqa: T201 - the result of this script


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        run = asyncio.run
    run(main(*sys.argv[1:]))
