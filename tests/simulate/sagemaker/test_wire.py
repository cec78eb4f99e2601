"""Connections to containers."""

from __future__ import annotations

import socket
import threading

import pytest

from modeldeploy.simulate.wire import Line, UnreachableError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Name: v\r\n\r\nhi"


@pytest.fixture
def container():
    """A server of a few lines: ``answers`` are sent one for each request, an empty one closes; ``seen`` are the requests by connection."""
    server = socket.create_server(("127.0.0.1", 0))
    made = Container(server)
    yield made
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    made.line.close()
    made.thread.join(5)


class Container:
    def __init__(self, server):
        self.server = server
        self.answers = []
        self.seen = []
        self.line = Line(server.getsockname()[1])
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                connection, _address = self.server.accept()
            except OSError:
                return
            requests = []
            self.seen.append(requests)
            with connection:
                while data := connection.recv(65536):
                    requests.append(data)
                    answer = self.answers.pop(0)
                    connection.sendall(answer)
                    if not answer or b"close" in answer:
                        break

    def ask(self, body=b"", timeout=5.0):
        return self.line.ask("POST", "/invocations", {"Accept": "a/b"}, body, timeout)


def test_an_answer_without_a_length_ends_with_its_connection(container):
    container.answers = [b"HTTP/1.0 200 OK\r\nX-Name: close\r\n\r\nwhole", OK]
    assert container.ask().body == b"whole"
    assert container.ask().body == b"hi"
    assert len(container.seen) == 2


def test_an_answer_that_ends_before_its_length_is_none(container):
    container.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Name: close\r\n\r\nhalf"]
    with pytest.raises(UnreachableError, match="closed"):
        container.ask()


def test_a_request_is_one_piece_and_the_answer_is_read_whole(container):
    container.answers = [OK]
    reply = container.ask(b"body")
    assert (reply.status, reply.headers["x-name"], reply.body) == (200, "v", b"hi")
    assert container.seen == [
        [b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: a/b\r\nContent-Length: 4\r\n\r\nbody"]
    ]


def test_a_connection_is_kept(container):
    container.answers = [OK, OK]
    container.ask()
    container.ask()
    assert [len(requests) for requests in container.seen] == [2]


def test_a_connection_that_was_closed_meanwhile_is_replaced(container, wait_until):
    container.answers = [OK.replace(b"X-Name: v", b"X-Name: close"), OK]
    container.ask()
    wait_until(lambda: not container.line._idle[0].is_open(), what="the other end is closed")
    assert container.ask().status == 200
    assert [len(requests) for requests in container.seen] == [1, 1]


def test_a_request_that_was_sent_is_not_sent_again(container):
    container.answers = [OK, b"", OK]
    container.ask()
    with pytest.raises(UnreachableError):
        container.ask()
    assert [len(requests) for requests in container.seen] == [2]


def test_what_is_no_answer_is_unreachable(container):
    container.answers = [b"nonsense\r\n\r\n"]
    with pytest.raises(UnreachableError, match="not HTTP"):
        container.ask()


def test_an_answer_that_does_not_end_is_not_waited_for_longer_than_asked(container):
    container.answers = [OK[:-1]]
    with pytest.raises(TimeoutError):
        container.ask(timeout=0.2)


def test_nobody_listening_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"nothing listens on port {port}"):
        Line(port).ask("GET", "/ping", {}, b"", 1.0)


def test_parts_are_given_as_they_come(container):
    container.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]
    status, _headers, parts = container.line.stream("/invocations", {}, b"", 5.0)
    assert (status, b"".join(parts)) == (200, b"abc")
