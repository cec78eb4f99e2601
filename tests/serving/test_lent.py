"""A worker's side of what it is lent, without the worker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from modeldeploy.serving.head import Head, Repeat
from modeldeploy.serving.ledger import Ledger
from modeldeploy.serving.lent import BACK, MESSAGE, RECALL, TERMS, Lent, tell
from modeldeploy.serving.link import can_lend
from modeldeploy.serving.messages import Response

pytestmark = pytest.mark.skipif(not can_lend(), reason="connections are lent on Linux only")

HEAD = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: "
REPEAT = Repeat(HEAD, b"\r\n\r\n", Head("POST", b"/a", {"host": "x"}, old=False), "/a", "")


class Front:
    """The other end of the channel."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(0)
        theirs.settimeout(0)
        self.ledger = Ledger.make()
        self.lent = Lent(theirs)
        self._stack = stack
        stack.callback(self.ledger.close)
        stack.callback(self.channel.close)
        stack.callback(self.lent.close)

    def agree(self, most: int = 100) -> None:
        socket.send_fds(self.channel, [TERMS.pack(most)], [self.ledger.descriptor])
        self.lent.hear()

    def lend(self, place: int) -> socket.socket:
        """Lend a new client and give its side."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = self._stack.enter_context(socket.create_connection(listener.getsockname()))
            server, _address = listener.accept()
        self._stack.enter_context(server).settimeout(0)
        socket.send_fds(self.channel, [tell(place, REPEAT)], [server.fileno()])
        self.lent.hear()
        client.settimeout(10)
        return client

    def returned(self) -> list[int]:
        return [place for place, _rest in self.told()]

    def told(self) -> list[tuple[int, bool]]:
        """What was given back, and whether something of it is left over."""
        self.lent.tell()
        try:
            return list(BACK.iter_unpack(self.channel.recv(MESSAGE)))
        except BlockingIOError:
            return []


@pytest.fixture
def front() -> Iterator[Front]:
    with contextlib.ExitStack() as stack:
        yield Front(stack)


def request(body: bytes) -> bytes:
    return HEAD + b"%d\r\n\r\n" % len(body) + body


def test_requests_that_share_a_head_share_their_headers(front):
    front.agree()
    clients = [front.lend(place) for place in range(2)]
    for client in clients:
        client.sendall(request(b"x"))
    one, other = front.lent.take()
    assert one.headers is other.headers
    assert (one.method, one.path, one.headers, one.body) == ("POST", "/a", {"host": "x"}, b"x")


def test_whoever_waits_has_a_turn_before_anybody_has_two(front):
    front.agree(most=1)
    for place in range(3):
        front.lend(place).sendall(request(b"%d" % place))
    seen = []
    for _turn in range(3):
        seen += [each.body for each in front.lent.take()]
        front.lent.answer([Response(200, b"")])
    assert sorted(seen) == [b"0", b"1", b"2"]


def test_nobody_starves_beside_clients_that_always_ask(front):
    front.agree(most=2)
    clients = {b"%d" % place: front.lend(place) for place in range(3)}
    for body, client in clients.items():
        client.sendall(request(body))
    seen = []
    for _turn in range(6):
        taken = front.lent.take()
        front.lent.answer([Response(200, b"") for _each in taken])
        for each in taken:
            clients[each.body].sendall(request(each.body))
        seen += [each.body for each in taken]
    assert {body: seen.count(body) for body in clients} == dict.fromkeys(clients, 4)


def test_a_recall_behind_many_loans_is_heard_at_once(front):
    front.agree()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _address = listener.accept()
        for place in range(20):
            socket.send_fds(front.channel, [tell(place, REPEAT)], [server.fileno()])
        front.channel.send(RECALL)
        server.close()
        front.lent.hear()
        assert front.returned() == list(range(20))
        assert client.fileno() >= 0


def test_a_socket_that_did_not_arrive_is_given_back(front):
    front.agree()
    front.channel.send(tell(5, REPEAT))  # as when too many files are open
    front.lent.hear()
    assert front.returned() == [5]
    assert not front.lent.ended


def test_without_the_ledger_nothing_can_be_lent(front):
    front.channel.send(TERMS.pack(1))
    front.lent.hear()
    assert front.lent.ended


def test_what_the_front_does_not_read_in_time_is_told_again(front):
    front.agree()
    front.lent.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    told = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            front.lent.channel.send(BACK.pack(99, 0))
            told += 1
    front.lend(3).close()
    assert front.lent.take() == []
    front.lent.tell()
    for _each in range(told):
        front.channel.recv(MESSAGE)
    assert front.returned() == [3]


@pytest.mark.parametrize("answer", [Response(500, b"{}"), Response(200, b"x" * 100_000)])
def test_what_is_no_usual_answer_is_left_to_the_front(front, answer):
    front.agree()
    client = front.lend(4)
    client.sendall(request(b"x"))
    front.lent.take()
    front.lent.answer([answer])
    assert front.told() == [(4, True)]
    assert bytes(front.ledger.place(4)[: len(request(b"x"))]) == request(b"x")
    client.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_the_front_is_told_of_whom_something_is_left_over(front):
    front.agree()
    clients = {place: front.lend(place) for place in (1, 2, 3)}
    clients[1].sendall(request(b"whole"))
    clients[2].sendall(request(b"a part")[:-1])
    front.lent.take()
    front.lent.answer([Response(200, b"{}")])
    front.channel.send(RECALL)
    front.lent.hear()
    assert sorted(front.told()) == [(1, False), (2, True), (3, False)]


def test_the_rest_of_an_answer_that_nobody_reads_is_left_over(front):
    front.agree()
    client = front.lend(1)
    body = b"x" * 60_000
    while True:  # until the system takes no more
        client.sendall(request(b"x"))
        front.lent.take()
        front.lent.answer([Response(200, body)])
        if told := front.told():
            break
    assert told == [(1, True)]
