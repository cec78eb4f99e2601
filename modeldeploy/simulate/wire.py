"""Asks containers over connections that stay open: one write for a request, nothing between the bytes and the caller."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

_READ = 256 * 1024
_KEPT = 16
_LENGTHS = frozenset({"content-length", "transfer-encoding"})


@attrs.frozen
class Reply:
    """What a container answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class UnreachableError(ConnectionError):
    """The container took no connection, or closed it without an answer."""


class Line:
    """The connections to one container."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []
        self._closed = False
        self._lock = threading.Lock()

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Reply:
        """Send a request and read the answer whole; TimeoutError or UnreachableError when there is none."""
        connection = self._send(method, path, headers, body, timeout)
        try:
            data = b"".join(connection.parts())
            return Reply(connection.status, connection.headers, data)
        finally:
            self._give_back(connection)

    def stream(
        self, path: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> tuple[int, Mapping[str, str], Iterator[bytes]]:
        """Send a request, and give status, headers and the body's parts as they come."""
        connection = self._send("POST", path, headers, body, timeout)
        return connection.status, connection.headers, self._parts(connection)

    def close(self) -> None:
        """Close the connections that nobody uses now, and later the others."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()

    def _parts(self, connection: _Connection) -> Iterator[bytes]:
        try:
            yield from connection.parts()
        finally:
            self._give_back(connection)

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> _Connection:
        data = _request(method, path, headers, body)
        return (self._take() or _Connection(self._port)).send(data, timeout)

    def _take(self) -> _Connection | None:
        """Take a connection that is open still: once a request is sent on one it is not sent again, for it may have been acted on."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_open():
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            keep = connection.reusable and not self._closed and len(self._idle) < _KEPT
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()


def _request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


class _Connection:
    """One connection and the answer that is being read from it."""

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError as error:
            message = f"nothing listens on port {port}"
            raise UnreachableError(message) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reset()

    def _reset(self) -> None:
        import httptools

        self._parser: Any = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self._ready: list[bytes] = []
        self._headed = self._complete = False
        self.reusable = False
        self.status = 0

    def send(self, data: bytes, timeout: float) -> _Connection:
        """Send a request and read the answer's head."""
        self._reset()
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(data)
            while not self._headed:
                self._read()
        except (TimeoutError, UnreachableError):
            self.close()
            raise
        except OSError as error:
            self.close()
            message = "the container closed the connection"
            raise UnreachableError(message) from error
        return self

    def parts(self) -> Iterator[bytes]:
        """Give the answer's body as it comes."""
        while True:
            ready, self._ready = self._ready, []
            yield from ready
            if self._complete:
                return
            self._read()

    def is_open(self) -> bool:
        """Say whether the other end has not closed it while nobody asked; nothing may be there to be read then."""
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _read(self) -> None:
        import httptools

        data = self._socket.recv(_READ)
        if not data and self._headed and _LENGTHS.isdisjoint(self.headers):
            # An answer that does not say how long it is ends with its connection, as those of HTTP/1.0 do.
            self._complete = True
            return
        if not data:
            message = "the container closed the connection"
            raise UnreachableError(message)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            message = "the container's answer is not HTTP"
            raise UnreachableError(message) from error

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._headed = True

    def on_body(self, data: bytes) -> None:
        self._ready.append(data)

    def on_message_complete(self) -> None:
        self._complete = True
        self.reusable = self._parser.should_keep_alive()
