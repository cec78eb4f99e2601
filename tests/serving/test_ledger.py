"""Whatever a worker was doing when it ended: who takes its connection over answers what is due, and nothing twice."""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.serving.head import Head, Repeat
from modeldeploy.serving.ledger import PLACE_BYTES, PLACES, Ledger, Leftover, Position
from modeldeploy.serving.lent import TERMS, Lent, tell
from modeldeploy.serving.link import can_lend
from modeldeploy.serving.messages import Response

pytestmark = pytest.mark.skipif(not can_lend(), reason="connections are lent on Linux only")

HEAD = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: "
PLACE = 7
ACTS = 13
"""One more than a request takes."""


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Ends the worker before its so many-th act, or after it."""

    def __init__(self, acts: int) -> None:
        self.left = acts

    def around(self, act):
        def done(*arguments):
            self._burn()
            found = act(*arguments)
            self._burn()
            return found

        return done

    def _burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


class Watched:
    """A thing whose acts burn a fuse."""

    def __init__(self, thing: object, fuse: Fuse, *acts: str) -> None:
        self._thing = thing
        for act in acts:
            setattr(self, act, fuse.around(getattr(thing, act)))

    def __getattr__(self, name: str) -> object:
        return getattr(self._thing, name)


def request(body: bytes) -> bytes:
    return HEAD + b"%d\r\n\r\n" % len(body) + body


def reply(body: bytes) -> bytes:
    return b"<" + body + b">"


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _address = listener.accept()
    with client, server:
        client.settimeout(10)
        server.settimeout(0)
        yield client, server


@contextlib.contextmanager
def ledgers() -> Iterator[Ledger]:
    made = Ledger.make()
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def lending(ledger: Ledger, server: socket.socket) -> Iterator[Lent]:
    """Give a worker's side that was lent one connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(0)
    repeat = Repeat(HEAD, b"\r\n\r\n", Head("POST", b"/a", {"host": "x"}, old=False), "/a", "")
    with ours, selectors.DefaultSelector() as selector:
        lent = Lent(theirs)
        socket.send_fds(ours, [TERMS.pack(100)], [ledger.descriptor])
        lent.hear()
        socket.send_fds(ours, [tell(PLACE, repeat)], [server.fileno()])
        lent.hear()
        selector.register(lent, selectors.EVENT_READ)
        yield lent
        lent.close()


def read_answers(client: socket.socket, count: int) -> list[bytes]:
    stream = client.makefile("rb")
    found = []
    for _each in range(count):
        length = 0
        while (line := stream.readline()) not in {b"\r\n", b""}:
            if line.startswith(b"content-length: "):
                length = int(line.split()[1])
        found.append(stream.read(length))
    stream.close()
    return found


def work(lent: Lent, fuse: Fuse | None = None) -> None:
    """Do what a worker does in a turn."""
    if fuse is not None:
        (client,) = lent._clients.values()
        client.sock = Watched(client.sock, fuse, "recv_into", "send")
        lent._ledger = Watched(lent._ledger, fuse, "begin", "end", "writing", "settle")
    lent.answer([Response(200, reply(each.body), {"content-type": "x"}) for each in lent.take()])
    if fuse is not None:
        client.sock = client.sock._thing
        lent._ledger = lent._ledger._thing


def take_over(ledger: Ledger, server: socket.socket, before: Position) -> Leftover | None:
    return ledger.leftover(PLACE, Position.of(server).since(before))


@pytest.mark.parametrize("acts", range(ACTS))
@pytest.mark.parametrize("good", [0, 2])
def test_a_worker_that_ends_anywhere_leaves_one_request_answered_once(good, acts):
    with connection() as (client, server), ledgers() as ledger:
        before = Position.of(server)
        with lending(ledger, server) as lent:
            for number in range(good):
                client.sendall(request(b"%d" % number))
                work(lent)
            client.sendall(request(b"last"))
            fuse = Fuse(acts)
            with contextlib.suppress(Killed):
                work(lent, fuse)
            (kept,) = lent._clients.values()
            kept.sock = getattr(kept.sock, "_thing", kept.sock)
            left = take_over(ledger, server, before)
            lent._ledger = Ledger(os.dup(ledger.descriptor))
        assert left is not None
        # The front goes on: what it is told was read, or what is in the socket still.
        data = left.request
        with contextlib.suppress(BlockingIOError):
            data += server.recv(PLACE_BYTES)
        if data:
            assert data == request(b"last")
            body = reply(b"last")
            server.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        server.shutdown(socket.SHUT_WR)
        answers = [reply(b"%d" % number) for number in range(good)]
        assert read_answers(client, good + 1) == [*answers, reply(b"last")]
        assert client.recv(1) == b""


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=5), st.integers(0, 2_998))
def test_what_is_read_of_a_request_is_left_over_whole(bodies, cut):
    with connection() as (client, server), ledgers() as ledger:
        before = Position.of(server)
        with lending(ledger, server) as lent:
            for body in bodies:
                client.sendall(request(body))
                work(lent)
            part = request(b"x" * 3_000)[: len(HEAD) + 9 + cut]
            client.sendall(part)
            assert lent.take() == []
            left = take_over(ledger, server, before)
        assert left == Leftover(request=part)
        assert read_answers(client, len(bodies)) == [reply(body) for body in bodies]


def test_an_answer_that_stopped_half_way_cannot_be_taken_over_but_with_its_rest():
    with connection() as (client, server), ledgers() as ledger:
        before = Position.of(server)
        ledger.open(PLACE)
        client.sendall(b"12345")
        server.recv_into(ledger.place(PLACE))
        ledger.writing(PLACE, 10)
        server.sendall(b"half")
        assert take_over(ledger, server, before) is None
        ledger.settle(PLACE, 5, 4, b"and half")
        assert take_over(ledger, server, before) == Leftover(rest=b"and half")


@pytest.mark.parametrize("nonsense", [(1 << 40, 0), (0, 1 << 40)])
def test_nonsense_in_the_ledger_is_no_leftover(nonsense):
    with ledgers() as ledger:
        ledger.open(PLACE)
        ledger._words[:] = memoryview(b"\xff" * ledger._words.nbytes).cast("Q")
        assert ledger.leftover(PLACE, Position(*nonsense)) is None


def test_nobody_can_cut_the_ledger_short():
    with ledgers() as ledger, pytest.raises(PermissionError):
        os.ftruncate(ledger.descriptor, mmap.PAGESIZE)


def test_every_place_is_a_room_of_its_own_and_news_are_told_once():
    with ledgers() as ledger:
        for number in range(PLACES):
            ledger.place(number)[:] = bytes([number % 256]) * PLACE_BYTES
        assert all(ledger.place(number)[-1] == number % 256 for number in range(PLACES))
        assert ledger.in_hand == ledger.turns == 0
        ledger.begin(3)
        assert ledger.in_hand == 3
        ledger.end(3, 5, 0.5)
        ledger.end(1, 7, 0.25)
        assert ledger.news() == ({5: 3, 7: 1}, pytest.approx(1.75))
        assert ledger.news() == ({}, 0.0)
        assert (ledger.in_hand, ledger.turns) == (0, 2)
