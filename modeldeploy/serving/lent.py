"""The connections that a worker is lent by a front (``loans.py``): read, written and given back.

A worker knows one thing to do with them: a whole request with the head it was told of is answered, if the answer is 200. Everything else,
an end or a failure included, is the front's business: the connection is given back as it is, and the front finds what was read of it in
the ledger.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import time
from collections.abc import Sequence

import orjson

from modeldeploy.serving.answers import AnswerHeads
from modeldeploy.serving.head import Head, Repeat
from modeldeploy.serving.ledger import PLACE_BYTES, Ledger
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.meters import bucket_for

_OK = 200
_DATE_S = 1.0
_KNOWN = 64
_SILENT_S = 5.0
_AT_ONCE_S = 1e-4

TERMS = struct.Struct("<I")
"""The first message, with the ledger's descriptor: how many requests are taken at once."""
RECALL = b"!"
"""Everything is to be given back."""
BACK = struct.Struct("<H?")
"""What is given back, one after the other: its place, and whether the front finds something left over in the ledger."""
MESSAGE = 1 << 16
"""No message is longer."""
_HEAD = struct.Struct("<HHH")
_PLACE = struct.Struct("<H")


def tell(place: int, repeat: Repeat) -> bytes:
    """Write the message that comes with a socket: its place in the ledger, and the head that is to be answered."""
    head = repeat.head
    meta = orjson.dumps([head.method, repeat.path, repeat.query, head.headers])
    lengths = _HEAD.pack(place, len(meta), len(repeat.before))
    return b"".join((lengths, meta, repeat.before, repeat.after))


def _told(data: bytes) -> Repeat:
    _place, size, length = _HEAD.unpack_from(data)
    start, middle = _HEAD.size + size, _HEAD.size + size + length
    method, path, query, headers = orjson.loads(data[_HEAD.size : start])
    return Repeat(data[start:middle], data[middle:], Head(method, b"", headers, old=False), path, query)


class _Client:
    """One connection, and how far it is."""

    __slots__ = ("heard", "place", "read", "repeat", "room", "size", "sock", "written")

    def __init__(self, sock: socket.socket, place: int, repeat: Repeat, room: memoryview) -> None:
        self.sock = sock
        self.place = place
        self.repeat = repeat
        self.room = room
        self.read = self.written = self.size = 0
        self.heard = True
        """Whether it asked something since it was last looked after."""


class Lent:
    """What one front lends."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.ended = False
        """Whether the front is gone."""
        self._epoll = select.epoll()
        self._ledger: Ledger | None = None
        self._most = 1
        self._clients: dict[int, _Client] = {}
        self._repeats: dict[bytes, Repeat] = {}
        self._returned: list[tuple[int, bool]] = []
        self._taken: list[_Client] = []
        self._heads = AnswerHeads()
        self._began = self._ended = self._looked = self._dated = self._swept = time.perf_counter()

    def fileno(self) -> int:
        """Be waited for: readable when a client has something to say."""
        return self._epoll.fileno()

    def hear(self) -> None:
        """Take what the front lends, or give everything back."""
        with contextlib.suppress(BlockingIOError):
            while not self.ended:
                self._obey(*self._receive())

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self.channel, MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise
        except OSError:
            return b"", []
        return data, descriptors

    def _obey(self, data: bytes, descriptors: list[int]) -> None:
        if not data:
            self.ended = True
        elif data == RECALL:
            self.give_back_all()
        elif self._ledger is None:
            self._agree(data, descriptors)
        else:
            self._begin(self._ledger, data, descriptors)

    def _agree(self, data: bytes, descriptors: list[int]) -> None:
        (self._most,) = TERMS.unpack(data)
        with contextlib.suppress(IndexError, OSError):  # too many files are open, or there is no memory
            self._ledger = Ledger(descriptors[0])
        self.ended = self._ledger is None

    def _begin(self, ledger: Ledger, data: bytes, descriptors: list[int]) -> None:
        (place,) = _PLACE.unpack_from(data)
        if not descriptors:  # too many files are open
            self._returned.append((place, False))
            return
        (descriptor,) = descriptors
        sock = socket.socket(fileno=descriptor)
        sock.settimeout(0)
        # Requests with the same head share their headers, whoever sends them, so that the model server finds its plan at once.
        known = data[_PLACE.size :]
        repeat = self._repeats.get(known)
        if repeat is None:
            if len(self._repeats) >= _KNOWN:
                self._repeats.clear()
            repeat = self._repeats[known] = _told(data)
        self._clients[descriptor] = _Client(sock, place, repeat, ledger.place(place))
        self._epoll.register(descriptor, select.EPOLLIN)

    # Requests

    def take(self) -> list[Request]:
        """Give the requests that wait, as many as the front allows at once; the others come first the next time."""
        requests: list[Request] = []
        if self._ledger is not None and self._ledger.revoked:
            self.give_back_all()
        before, self._looked = self._looked, time.perf_counter()
        # When we come straight from the last requests, these may have come while we worked: they count from the last look on.
        self._began = before if self._looked - self._ended < _AT_ONCE_S else self._looked
        for descriptor, _events in self._epoll.poll(0, self._most):
            client = self._clients[descriptor]
            request = self._read(client)
            if request is not None:
                self._taken.append(client)
                requests.append(request)
        if requests and self._ledger is not None:
            self._ledger.begin(len(requests))
        return requests

    def _read(self, client: _Client) -> Request | None:
        try:
            size = client.sock.recv_into(client.room[client.size :] if client.size else client.room)
        except BlockingIOError:
            return None
        except OSError:
            size = 0
        client.size += size
        repeat, data = client.repeat, bytes(client.room[: client.size])
        body = repeat.body(data)
        if body is None:
            if not size or not repeat.is_part(data):
                self._give_back(client)
            return None
        client.heard = True
        head = repeat.head
        return Request(head.method, repeat.path, repeat.query, head.headers, body)

    def answer(self, answers: Sequence[Response]) -> None:
        """Answer what was taken, in order."""
        taken, self._taken = self._taken, []
        if not taken or self._ledger is None:
            return
        if self._looked - self._dated >= _DATE_S:
            self._dated = self._looked
            self._heads.tick()
        ready = [(client, self._bytes(answer)) for client, answer in zip(taken, answers, strict=True)]
        seconds = time.perf_counter() - self._began
        # Before anybody has an answer, so that whoever has one finds it counted.
        self._ledger.end(sum(1 for _client, data in ready if data), bucket_for(seconds), seconds)
        for client, data in ready:
            self._write(self._ledger, client, data)
        self._ended = time.perf_counter()

    def _bytes(self, answer: Response) -> bytes:
        """Give the answer as it is written; nothing when it is the front that must answer."""
        data = b"%b%d\r\n\r\n%b" % (self._heads.before_length(answer), len(answer.body), answer.body)
        return data if answer.status == _OK and len(data) <= PLACE_BYTES else b""

    def _write(self, ledger: Ledger, client: _Client, data: bytes) -> None:
        ledger.writing(client.place, len(data))
        try:
            sent = client.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            data, sent = b"", 0
        if not data:
            self._give_back(client)
            return
        client.read += client.size
        client.size = 0
        client.written += sent
        ledger.settle(client.place, client.read, client.written, data[sent:])
        if sent < len(data):
            self._give_back(client, rest=True)

    # Giving back

    def _give_back(self, client: _Client, *, rest: bool = False) -> None:
        del self._clients[client.sock.fileno()]
        self._epoll.unregister(client.sock)
        client.sock.close()
        self._returned.append((client.place, rest or client.size > 0))

    def give_back_all(self) -> None:
        """Give everything back that is not being answered."""
        for client in list(self._clients.values()):
            self._give_back(client)

    def _give_back_silent(self) -> None:
        """Give back who has asked nothing since this was done last: how long a client may be silent is the front's to know."""
        for client in list(self._clients.values()):
            if not client.heard:
                self._give_back(client)
            client.heard = False

    def tell(self) -> None:
        """Tell the front what it has back."""
        if self._looked - self._swept >= _SILENT_S:
            self._swept = self._looked
            self._give_back_silent()
        if self._returned:
            with contextlib.suppress(OSError):  # it is far behind, or gone: the next time tells of these as well
                self.channel.send(b"".join(itertools.starmap(BACK.pack, self._returned)))
                self._returned.clear()

    def close(self) -> None:
        """Give everything back and let go of the rest."""
        self.ended = True
        self.give_back_all()
        self.tell()
        self._epoll.close()
        self.channel.close()
        if self._ledger is not None:
            self._ledger.close()
