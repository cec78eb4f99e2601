"""Connections to the server that stay open between requests, for many threads and for processes that fork.

A general HTTP client spends some 400 us of processor time on each request, more than most models; this one under 30, for it does one thing:
it sends a request in one piece and reads the answer with the parser that the server uses.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import weakref
from typing import TypeAlias

import attrs

from modeldeploy.serving.limits import Limits

Address: TypeAlias = "tuple[str, int]"

_KEPT = 32
"""Idle connections to one address that are worth keeping."""
# The server closes an idle connection by and by; one that is not used so near to that never meets it half-way.
_IDLE_S = 0.8 * Limits().idle_timeout
_CONNECT_S = 5.0
# Up to here a copy is cheaper than a second write, which would wake the server twice.
_JOINED = 1 << 16
_PIECE = 1 << 16


class NobodyThereError(Exception):
    """Nothing listens at the address."""


class BrokenError(Exception):
    """The connection ended before the whole answer was there."""

    def __init__(self, *, asked: bool, answered: bool) -> None:
        super().__init__()
        self.asked = asked
        """Whether the server may have the whole request; before that it does nothing about it."""
        self.answered = answered
        """Whether a part of the answer came."""


@attrs.frozen
class Answer:
    """What the server said; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    keep: bool
    """Whether the connection may be used again."""


class _Reader:
    """One answer, as the parser finds it; what follows it was not asked for."""

    def __init__(self) -> None:
        import httptools

        self.answer: Answer | None = None
        self.begun = self.surplus = False
        self.parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []

    def on_message_begin(self) -> None:
        self.surplus = self.begun
        self.begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self.answer is None:
            # Later the parser has forgotten whether the connection is kept.
            keep = bool(self.parser.should_keep_alive())
            self.answer = Answer(self.parser.get_status_code(), self._headers, b"".join(self._parts), keep)
            self._headers, self._parts = {}, []


class Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, address: Address, until: float) -> None:
        self.address = address
        self.since = time.monotonic()
        """When it was last used."""
        within = min(_CONNECT_S, _left(until))
        try:
            self._sock = socket.create_connection(address, within)
        except OSError as error:
            raise NobodyThereError(str(error)) from error
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    @property
    def usable(self) -> bool:
        """Whether it is open and silent, as it must be between two requests."""
        return time.monotonic() - self.since < _IDLE_S and not self._poll.poll(0)

    def ask(self, head: bytes, body: bytes, until: float) -> Answer:
        """Send a request and read its answer; TimeoutError at ``until`` (monotonic), BrokenError when the connection ended."""
        asked = self._send(head, body, until)
        answer = self._receive(until, asked=asked)
        self.since = time.monotonic()
        return answer if asked else attrs.evolve(answer, keep=False)

    def _send(self, head: bytes, body: bytes, until: float) -> bool:
        """Send all of it; False when the server did not want to read so much, and may have said why."""
        try:
            for part in (head + body,) if len(body) <= _JOINED else (head, body):
                self._sock.settimeout(_left(until))
                self._sock.sendall(part)
        except TimeoutError:
            raise
        except OSError:
            return False
        return True

    def _receive(self, until: float, *, asked: bool) -> Answer:
        import httptools

        reader = _Reader()
        try:
            while reader.answer is None:
                self._sock.settimeout(_left(until))
                data = self._sock.recv(_PIECE)
                if not data:
                    raise BrokenError(asked=asked, answered=reader.begun)
                reader.parser.feed_data(data)
        except TimeoutError:
            raise
        except (OSError, httptools.HttpParserError) as error:
            raise BrokenError(asked=asked, answered=reader.begun) from error
        return attrs.evolve(reader.answer, keep=False) if reader.surplus else reader.answer

    def close(self) -> None:
        """Give the descriptor back; another process that has it too can go on with it."""
        self._sock.close()


class Connections:
    """Keeps connections open; a process that was forked makes its own and never touches those of its parent."""

    def __init__(self) -> None:
        self._idle: dict[int, _Idle] = {}
        """By process: there is more than one for a moment only, after a fork."""
        weakref.finalize(self, _close, self._idle)

    def ask(self, address: Address, head: bytes, body: bytes, until: float) -> Answer:
        """Send a request over a connection of its own; errors as of ``Connection``, NobodyThereError when there is nobody to connect to."""
        idle = self._mine()
        connection = idle.take(address) or Connection(address, until)
        try:
            answer = connection.ask(head, body, until)
        except BaseException:
            # Whatever happened, a late answer must not meet the next request.
            connection.close()
            raise
        if not (answer.keep and idle.give(connection)):
            connection.close()
        return answer

    def _mine(self) -> _Idle:
        process = os.getpid()
        mine = self._idle.get(process)
        if mine is None:
            # Of several threads that come here at once one sets what all get.
            mine = self._idle.setdefault(process, _Idle())
            for other in [each for each in self._idle if each != process]:
                _close_each(self._idle.pop(other, _Idle()).empty())
        return mine

    def close(self) -> None:
        """Close what is idle."""
        _close(self._idle)


class _Idle:
    """The idle connections of one process, by address; the last one used is the first to be used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Address, list[Connection]] = {}

    def take(self, address: Address) -> Connection | None:
        """Find one that is fit for use."""
        while True:
            with self._lock:
                kept = self._kept.get(address)
                found = kept.pop() if kept else None
            if found is None:
                self._tidy()
                return None
            if found.usable:
                return found
            found.close()

    def give(self, connection: Connection) -> bool:
        """Keep one for the next request; False when there are enough."""
        with self._lock:
            kept = self._kept.setdefault(connection.address, [])
            if len(kept) >= _KEPT:
                return False
            kept.append(connection)
            return True

    def _tidy(self) -> None:
        """Let go of addresses that nobody has asked for a while."""
        with self._lock:
            now = time.monotonic()
            for address, kept in list(self._kept.items()):
                if not kept or now - kept[-1].since > _IDLE_S:
                    del self._kept[address]
                    _close_each(kept)

    def empty(self) -> list[Connection]:
        """Give all of them away; without the lock, which a thread of the parent may have held at the fork."""
        kept, self._kept = self._kept, {}
        return [each for those in kept.values() for each in those]


def _close(idle: dict[int, _Idle]) -> None:
    for each in list(idle.values()):
        _close_each(each.empty())


def _close_each(connections: list[Connection]) -> None:
    """Give the descriptors back; the parent of a forked process keeps its own, and its connections stay as they are."""
    for each in connections:
        with contextlib.suppress(OSError):
            each.close()


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
