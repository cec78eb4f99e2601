"""Frames between a front and a worker, many requests in one: the fewer wake-ups, the more requests per second.

::

    u32 length of what follows | u32 length of meta | meta | bodies, one after the other

Little-endian. ``meta`` is JSON: ``[heads, ids, which, sizes]``, where ``heads`` are the different ``[method, path, query, headers]`` of
requests or ``[status, headers]`` of answers, and the other lists hold for each body its id, the number of its head and its length: what many
share is told once. The ids are the front's; a worker answers in any order. A frame without answers says that the worker is about to end: it
answers what it was sent, and the front then closes the connection.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import sys
from collections.abc import Collection, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from modeldeploy.errors import ConfigurationError, ModelDeployError
from modeldeploy.serving.messages import Request, Response

if TYPE_CHECKING:
    import asyncio

MAX_FRAME = (1 << 32) - 1
LOANS = ".lent"
"""After the address of a worker that can be lent connections (``loans.py``): where it is."""
_LENGTH = struct.Struct("<I")
_LENGTHS = struct.Struct("<II")
_TCP = "tcp:"
_BACKLOG = 64
_CHUNK = 1 << 20
_Message = TypeVar("_Message")


class FrameError(ModelDeployError):
    """Bytes on the link are not a frame; the connection is of no more use."""


def encode_requests(items: Sequence[tuple[int, Request]], *, without: Collection[str] = ()) -> bytes:
    """Make one frame of requests, with an id for each; headers that are named in ``without`` are left out."""
    requests = [request for _number, request in items]
    # Told apart by identity: requests that came with the same bytes share their headers.
    first, which = _heads([(id(r.headers), r.path, r.query, r.method) for r in requests], requests)
    heads = [
        [r.method, r.path, r.query, {name: text for name, text in r.headers.items() if name not in without}]
        for r in first
    ]
    return _frame([heads, [number for number, _request in items], which], [r.body for r in requests])


def encode_responses(items: Sequence[tuple[int, Response]]) -> bytes:
    """Make one frame of answers, each with the id of its request."""
    responses = [response for _number, response in items]
    first, which = _heads([(id(r.headers), r.status) for r in responses], responses)
    heads = [[r.status, r.headers] for r in first]
    return _frame([heads, [number for number, _response in items], which], [r.body for r in responses])


def _heads(keys: Iterable[Hashable], messages: Sequence[_Message]) -> tuple[list[_Message], list[int]]:
    """Give the first message of each key, and for each message the number of its key."""
    numbers: dict[Hashable, int] = {}
    which = [numbers.setdefault(key, len(numbers)) for key in keys]
    first = dict(zip(reversed(which), reversed(messages), strict=True))
    return [first[number] for number in range(len(numbers))], which


def _frame(meta: list[object], bodies: list[bytes]) -> bytes:
    head = orjson.dumps([*meta, list(map(len, bodies))])
    rest = b"".join((head, *bodies))
    if len(rest) + _LENGTH.size > MAX_FRAME:
        message = f"a frame of {len(rest)} bytes is too large"
        raise FrameError(message, hint="put fewer requests into one frame")
    return _LENGTHS.pack(len(rest) + _LENGTH.size, len(head)) + rest


def decode_requests(frame: bytes) -> list[tuple[int, Request]]:
    """Take a frame (without its own length) apart; FrameError when it is not one. Requests of one head share their headers."""
    requests = []
    try:
        heads, rows = _meta(frame)
        for number, which, start, end in rows:
            method, path, query, headers = heads[which]
            requests.append((number, Request(method, path, query, headers, frame[start:end])))
    except (TypeError, ValueError, IndexError) as error:
        raise _broken() from error
    return requests


def decode_responses(frame: bytes) -> list[tuple[int, Response]]:
    """Take a frame (without its own length) apart; FrameError when it is not one. Answers of one head share their headers."""
    responses = []
    try:
        heads, rows = _meta(frame)
        for number, which, start, end in rows:
            status, headers = heads[which]
            responses.append((number, Response(status, frame[start:end], headers)))
    except (TypeError, ValueError, IndexError) as error:
        raise _broken() from error
    return responses


def _meta(frame: bytes) -> tuple[list[Any], Iterable[tuple[int, int, int, int]]]:
    """Give the heads, and of each body its id, the number of its head, and where it lies."""
    try:
        (size,) = _LENGTH.unpack_from(frame)
        start = _LENGTH.size + size
        heads, numbers, which, sizes = orjson.loads(frame[_LENGTH.size : start])
    except (struct.error, orjson.JSONDecodeError) as error:
        raise _broken() from error
    ends = list(itertools.accumulate(sizes, initial=start))
    if ends[-1] != len(frame) or not len(numbers) == len(which) == len(sizes):
        raise _broken()
    return heads, zip(numbers, which, ends, ends[1:], strict=False)


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
    import asyncio  # which a worker, that has no loop, need not load

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
    return _listen(address, socket.SOCK_STREAM), address


def listen_for_loans(address: str) -> socket.socket | None:
    """Listen beside a unix socket that ``listen`` gave; None where connections cannot be lent."""
    return _listen(address + LOANS, socket.SOCK_SEQPACKET) if can_lend() and not address.startswith(_TCP) else None


def can_lend() -> bool:
    """Whether this system can share a ledger of connections, and counts their bytes: Linux does."""
    return sys.platform == "linux" and hasattr(os, "memfd_create")


def remove(address: str) -> None:
    """Remove what ``listen`` and ``listen_for_loans`` left in the file system."""
    if not address.startswith(_TCP):
        for path in (address, address + LOANS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - one call, which takes no time worth a thread


def _listen(address: str, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(_unix(address), kind)
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
    return sock


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
