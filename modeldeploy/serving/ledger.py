"""What a front and a worker both know of the connections that are lent: one piece of memory, which outlives the worker.

A place for each connection holds what was read of it and is not yet answered, and how much was read and written in all for requests that
are done. The kernel counts the bytes of a connection too (``Position``), so whoever takes one back, from a worker that lives or from
one that was killed between two instructions, can tell whether its last request was answered::

    u64 revoked | u64 in hand | u64 turns | u64 nanoseconds | u64 answers for each bucket of the histogram
    for each place: u64 bytes read << 32 | bytes written, of requests that are done; u64 length of the answer that is being written;
                    u64 bytes of it that are left over
    for each place: the bytes
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
from collections.abc import Mapping

import attrs

from modeldeploy.serving.head import LARGEST_IN_PARTS
from modeldeploy.serving.meters import BUCKETS

PLACES = 256
"""Connections that one worker is lent at most."""
PLACE_BYTES = LARGEST_IN_PARTS
"""A request or an answer that is larger goes through the front."""

_WORD = 8
_WORDS = 3
_REVOKED, _IN_HAND, _TURNS, _NANOSECONDS, _BUCKETS = range(5)
_FIRST = _BUCKETS + BUCKETS
_DATA = -(-(_FIRST + _WORDS * PLACES) * _WORD // mmap.PAGESIZE) * mmap.PAGESIZE
_SIZE = _DATA + PLACES * PLACE_BYTES
_LOW = (1 << 32) - 1

# struct tcp_info of <linux/tcp.h>: tcpi_bytes_received, tcpi_notsent_bytes, tcpi_bytes_sent and tcpi_bytes_retrans.
_INFO_SIZE = 216
_RECEIVED, _NOT_SENT, _SENT = struct.Struct("=Q"), struct.Struct("=I"), struct.Struct("=QQ")
_RECEIVED_AT, _NOT_SENT_AT, _SENT_AT = 128, 144, 200


@attrs.frozen
class Position:
    """How many bytes of a connection were read and written on this side, by whatever process, since it was made."""

    read: int
    written: int

    @classmethod
    def of(cls, sock: socket.socket) -> Position:
        """Ask the kernel; OSError when it does not count them."""
        while True:
            received, written = _counted(sock)
            unread = unread_bytes(sock.fileno())
            # What comes between the two questions is counted by the second only.
            if received == _counted(sock)[0]:
                return cls(received - unread, written)

    def since(self, before: Position) -> Position:
        """Give what was read and written after ``before``."""
        return Position(self.read - before.read, self.written - before.written)


def _counted(sock: socket.socket) -> tuple[int, int]:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    if len(info) < _INFO_SIZE:
        message = "the kernel does not count what a connection sent"
        raise OSError(message)
    (received,) = _RECEIVED.unpack_from(info, _RECEIVED_AT)
    (waiting,) = _NOT_SENT.unpack_from(info, _NOT_SENT_AT)
    sent, repeated = _SENT.unpack_from(info, _SENT_AT)
    return received, sent - repeated + waiting


def unread_bytes(descriptor: int) -> int:
    """Ask the kernel how much has arrived that nobody has read; OSError when there is no such socket."""
    import fcntl
    import termios

    answer: bytes = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


@attrs.frozen
class Leftover:
    """How a connection was left: what is to be answered, and what is to be written before."""

    request: bytes = b""
    """Read and not answered."""
    rest: bytes = b""
    """Of an answer that the client has begun to read."""


class Ledger:
    """The shared memory; the front makes it, and the worker is given its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _SIZE)
        view = memoryview(self._memory)
        self._words = view[:_DATA].cast("Q")
        self._places = [view[at : at + PLACE_BYTES] for at in range(_DATA, _SIZE, PLACE_BYTES)]
        view.release()
        self._seen = 0, [0] * BUCKETS

    @classmethod
    def make(cls) -> Ledger:
        """Make an empty one, which nobody can cut short afterwards; OSError where there is no memory for it."""
        import fcntl

        descriptor = os.memfd_create("modeldeploy-ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, _SIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self._words, *self._places):
            view.release()
        self._memory.close()
        os.close(self.descriptor)

    # What the worker writes down.

    def place(self, number: int) -> memoryview:
        """Give the room for the bytes of one connection."""
        return self._places[number]

    def begin(self, requests: int) -> None:
        """Write down that so many requests are in hand."""
        self._words[_IN_HAND] = requests

    def end(self, requests: int, bucket: int, seconds: float) -> None:
        """Write down that so many are answered, each within ``seconds``, which belongs to ``bucket`` of the histogram."""
        words = self._words
        words[_BUCKETS + bucket] += requests
        words[_NANOSECONDS] += int(seconds * requests * 1e9)
        words[_TURNS] += 1
        words[_IN_HAND] = 0

    def writing(self, number: int, length: int) -> None:
        """Write down that an answer is about to be written."""
        self._words[_FIRST + _WORDS * number + 1] = length

    def settle(self, number: int, read: int, written: int, rest: bytes | memoryview = b"") -> None:
        """Write down that a request is done: what was read and written since the connection was lent, and the ``rest`` that is still to be written."""
        at = _FIRST + _WORDS * number
        if rest:
            self._places[number][: len(rest)] = rest
            self._words[at + 2] = len(rest)
        # One word, so that nobody ever finds the one without the other.
        self._words[at] = (read & _LOW) << 32 | written & _LOW

    # What the front writes down.

    def revoke(self, *, revoked: bool) -> None:
        """Let the worker read nothing more from its next look on, or again."""
        self._words[_REVOKED] = revoked

    def open(self, number: int) -> None:
        """Begin anew with a place."""
        at = _FIRST + _WORDS * number
        self._words[at] = self._words[at + 1] = self._words[at + 2] = 0

    # What either reads.

    @property
    def revoked(self) -> bool:
        """Whether the worker must give back what it has not read."""
        return bool(self._words[_REVOKED])

    @property
    def in_hand(self) -> int:
        """Requests that the worker has."""
        return self._words[_IN_HAND]

    @property
    def turns(self) -> int:
        """How often it has answered what it had."""
        return self._words[_TURNS]

    def news(self) -> tuple[Mapping[int, int], float]:
        """Give the answers by bucket and the seconds they took, since this was asked last."""
        before, seen = self._seen
        total = self._words[_NANOSECONDS]
        counts = self._words[_BUCKETS:_FIRST].tolist()
        self._seen = total, counts
        found = {bucket: count - seen[bucket] for bucket, count in enumerate(counts) if count != seen[bucket]}
        return found, (total - before) / 1e9

    def leftover(self, number: int, moved: Position) -> Leftover | None:
        """Say how a connection was left that has ``moved`` so far since it was lent; None when an answer stopped half way."""
        at = _FIRST + _WORDS * number
        done, length, rest = self._words[at : at + _WORDS].tolist()
        taken, written = (moved.read - (done >> 32)) & _LOW, (moved.written - done) & _LOW
        if max(taken, rest) > PLACE_BYTES:
            return None
        if not written:
            data = bytes(self._places[number][: rest or taken])
            return Leftover(rest=data) if rest else Leftover(request=data)
        return Leftover() if written == length else None
