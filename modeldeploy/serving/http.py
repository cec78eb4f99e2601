"""An HTTP/1.1 server for one handler: small, bounded, and one write for each answer.

The front and the container entry use it. It knows no model and no route: it turns bytes into ``Request`` and ``Response`` into bytes,
and refuses what is malformed, too large or too slow before a handler sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from modeldeploy.serving.answers import AnswerHeads
from modeldeploy.serving.connection import Connection
from modeldeploy.serving.gates import Gate
from modeldeploy.serving.head import Repeat
from modeldeploy.serving.limits import Limits, Room, descriptors, room
from modeldeploy.serving.messages import Request, Response

_SHORT, _KNOWN = 4_096, 256
"""Heads up to this size are shared among clients, so many of them."""

Handler = Callable[[Request], Awaitable[Response]]
Lender = Callable[[Connection, Repeat], bool]
"""Gives a client that asks the same way again and again to somebody else, who answers it until it asks otherwise; says whether it did."""


class HttpServer:
    """Serves ``handler`` on one listening socket.

    ``handler`` may be a coroutine function, or a plain function that returns an ``asyncio.Future``: then no task is made for a request,
    which is worth some microseconds. ``gate`` judges a request by its head; what it refuses is answered before the body is read. One that
    is ``steady`` says the same of the same head each time, and changes nothing: what a client repeats is then judged once, and ``lender``
    may lend it.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits | None = None,
        *,
        gate: Gate | None = None,
        steady: bool = False,
        lender: Lender | None = None,
    ) -> None:
        self.handler = handler
        self.gate = gate
        self.steady = steady or gate is None
        self.lender = lender if self.steady else None
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self.held = 0
        """Bytes of the bodies in hand."""
        self.draining = False
        self.heads = AnswerHeads()
        self._repeats: dict[tuple[bytes, bytes], Repeat] = {}
        self._descriptors = descriptors()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def start(self, sock: socket.socket) -> None:
        """Accept connections on ``sock``, which listens or is bound; it belongs to the server from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self, loop), sock=sock, backlog=1024)
        self._tick(loop)

    async def drain(self, grace: float, *, handover: bool = False) -> None:
        """Answer what is in flight, with ``Connection: close``, then stop; after ``grace`` seconds at the latest.

        For a moment (``Limits.linger``) new connections are still answered, so that nobody is reset who has not yet heard of it. With
        ``handover`` another process accepts on the same socket: new connections are left to it, and the moment is for those taken already.
        """
        self.draining = True
        end = time.monotonic() + grace
        if handover:
            self._stop_listening()
        await asyncio.sleep(min(self.limits.linger, grace))
        self._stop_listening()
        for connection in list(self.connections):
            connection.close_if_idle()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), max(0.0, end - time.monotonic()))
        self.close()

    def close(self) -> None:
        """Stop at once; what is in flight is cut off."""
        self.draining = True
        self._stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()

    def shared(self, repeat: Repeat | None) -> Repeat | None:
        """Give the one that other clients with the same head have, so that their requests share its headers.

        Not behind a gate that judges each request: it is given headers of its own, and the head may hold a key.
        """
        if repeat is None or not self.steady or len(repeat.before) + len(repeat.after) > _SHORT:
            return repeat
        if len(self._repeats) >= _KNOWN:
            self._repeats.clear()
        return self._repeats.setdefault((repeat.before, repeat.after), repeat)

    def room(self, descriptor: int) -> Room:
        """Say what there is room for when a connection comes with this descriptor."""
        return room(self.limits, len(self.connections), descriptor, self._descriptors)

    def joined(self, connection: Connection) -> None:
        """Count a connection in."""
        self.connections.add(connection)
        self._empty.clear()

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        # One timer for all connections: setting a deadline then costs an assignment, not a timer for each request.
        self.heads.tick()
        self._descriptors = descriptors()
        now = loop.time()
        for connection in list(self.connections):
            connection.check_time(now)
        self._timer = loop.call_later(self.limits.tick, self._tick, loop)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` on uvloop where it is installed, else on asyncio's own loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
