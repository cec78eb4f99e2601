"""Frames between a front and a worker, many requests in one: the fewer wake-ups, the more requests per second.

::

    u32 length of what follows | u32 length of meta | meta | bodies, one after the other

Little-endian. ``meta`` is JSON: ``[[id, method, path, query, headers, body length], ...]`` for requests and
``[[id, status, headers, body length], ...]`` for answers. The ids are the front's; a worker answers in any order. A frame without answers
says that the worker is about to end: it answers what it was sent, and the front then closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from modeldeploy.errors import ConfigurationError, ModelDeployError
from modeldeploy.serving.messages import Request, Response

MAX_FRAME = (1 << 32) - 1
_LENGTH = struct.Struct("<I")
_LENGTHS = struct.Struct("<II")
_TCP = "tcp:"
_BACKLOG = 64
_CHUNK = 1 << 20


class FrameError(ModelDeployError):
    """Bytes on the link are not a frame; the connection is of no more use."""


def encode_requests(items: Sequence[tuple[int, Request]]) -> bytes:
    """Make one frame of requests, with an id for each."""
    meta = [[number, r.method, r.path, r.query, r.headers, len(r.body)] for number, r in items]
    return _frame(meta, [request.body for _number, request in items])


def encode_responses(items: Sequence[tuple[int, Response]]) -> bytes:
    """Make one frame of answers, each with the id of its request."""
    meta = [[number, r.status, r.headers, len(r.body)] for number, r in items]
    return _frame(meta, [response.body for _number, response in items])


def _frame(meta: object, bodies: Iterable[bytes]) -> bytes:
    head = orjson.dumps(meta)
    rest = b"".join((head, *bodies))
    if len(rest) + _LENGTH.size > MAX_FRAME:
        message = f"a frame of {len(rest)} bytes is too large"
        raise FrameError(message, hint="put fewer requests into one frame")
    return _LENGTHS.pack(len(rest) + _LENGTH.size, len(head)) + rest


def decode_requests(frame: bytes) -> list[tuple[int, Request]]:
    """Take a frame (without its own length) apart; FrameError when it is not one."""
    meta, at = _meta(frame)
    requests = []
    try:
        for number, method, path, query, headers, size in meta:
            requests.append((number, Request(method, path, query, headers, frame[at : at + size])))
            at += size
    except (TypeError, ValueError) as error:
        raise _broken() from error
    _check_end(frame, at)
    return requests


def decode_responses(frame: bytes) -> list[tuple[int, Response]]:
    """Take a frame (without its own length) apart; FrameError when it is not one."""
    meta, at = _meta(frame)
    responses = []
    try:
        for number, status, headers, size in meta:
            responses.append((number, Response(status, frame[at : at + size], headers)))
            at += size
    except (TypeError, ValueError) as error:
        raise _broken() from error
    _check_end(frame, at)
    return responses


def _meta(frame: bytes) -> tuple[list[Any], int]:
    try:
        (size,) = _LENGTH.unpack_from(frame)
        end = _LENGTH.size + size
        meta = orjson.loads(frame[_LENGTH.size : end])
    except (struct.error, orjson.JSONDecodeError) as error:
        raise _broken() from error
    if not isinstance(meta, list):
        raise _broken()
    return meta, end


def _check_end(frame: bytes, at: int) -> None:
    if at != len(frame):
        raise _broken()


def _broken() -> FrameError:
    return FrameError("the link carried something that is not a frame", hint="close the connection and make a new one")


class Frames:
    """Collects bytes as they come and hands out whole frames; for protocols and non-blocking sockets."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Add ``data``; give every frame that is now whole, without its length. FrameError above the limit."""
        buffer = self._buffer
        if not buffer and self._is_one(data):
            return [data[_LENGTH.size :]]
        buffer += data
        frames, start = [], 0
        while (end := self._end(start)) is not None:
            with memoryview(buffer) as view:
                frames.append(bytes(view[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]
        return frames

    def _is_one(self, data: bytes) -> bool:
        """Whether this is one frame in one piece, as nearly always: then nothing is copied to and fro."""
        size = len(data) - _LENGTH.size
        return 0 <= size <= self._limit and _LENGTH.unpack_from(data)[0] == size

    def _end(self, start: int) -> int | None:
        if len(self._buffer) - start < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer, start)
        if size > self._limit:
            raise _broken()
        end = start + _LENGTH.size + int(size)
        return end if len(self._buffer) >= end else None


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Read one frame; None when the other side closed between frames, FrameError when it closed within one."""
    try:
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        if error.partial or error.expected != _LENGTH.size:
            raise _broken() from error
        return None


def receive_frame(sock: socket.socket) -> bytes | None:
    """Do what ``read_frame`` does on a blocking socket."""
    head = _receive(sock, _LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise _broken()
    (size,) = _LENGTH.unpack(head)
    frame = _receive(sock, size)
    if len(frame) < size:
        raise _broken()
    return frame


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(min(size - len(data), _CHUNK))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def listen(address: str) -> tuple[socket.socket, str]:
    """Listen on a unix socket path, or on ``tcp:HOST:PORT`` where there are none; give the socket and the address to connect to.

    A socket file left by a process that died is replaced.
    """
    if address.startswith(_TCP):
        host, port = _host_port(address)
        sock = socket.create_server((host, port), backlog=_BACKLOG)
        return sock, f"{_TCP}{host}:{sock.getsockname()[1]}"
    sock = socket.socket(_unix(address), socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        Path(address).unlink()
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        message = f"no socket can be made at {address!r}: {error}"
        raise ConfigurationError(
            message, hint="use a short path (about 100 bytes) in a directory of your own"
        ) from error
    Path(address).chmod(0o600)
    sock.listen(_BACKLOG)
    return sock, address


def connect(address: str, *, timeout: float | None = None) -> socket.socket:
    """Connect a blocking socket to an address that ``listen`` gave."""
    if address.startswith(_TCP):
        return socket.create_connection(_host_port(address), timeout=timeout)
    sock = socket.socket(_unix(address), socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _host_port(address: str) -> tuple[str, int]:
    host, _colon, port = address.removeprefix(_TCP).rpartition(":")
    if not (host and port.isdecimal()):
        message = f"address {address!r} is not 'tcp:HOST:PORT'"
        raise ConfigurationError(message, hint="for example 'tcp:127.0.0.1:0'")
    return host, int(port)


def _unix(address: str) -> int:
    family: int | None = getattr(socket, "AF_UNIX", None)
    if family is None:
        message = f"this platform has no unix sockets for {address!r}"
        raise ConfigurationError(message, hint="use 'tcp:127.0.0.1:0'")
    return family
