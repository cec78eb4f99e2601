"""Requests over connections that stay open: nothing is sent twice that must not be, and no answer goes to the wrong caller."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
import warnings

import pytest

from modeldeploy.backends.local import connections
from modeldeploy.backends.local.invoke import Caller, StaleAddressError
from modeldeploy.errors import InvalidRequestError, UnavailableError
from modeldeploy.values.serving import Payload

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local backend does not serve there")

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Scripted:
    """A server that treats each request as its script says: a function that is given the connection and the request."""

    def __init__(self, *script):
        self.requests = []
        self.connections = 0
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with connection:
            while request := receive(connection):
                self.requests.append(request)
                act = self._script.pop(0) if self._script else answer
                if act(connection, request) is False:
                    return

    def close(self):
        # Wakes the thread that accepts, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def receive(connection):
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            part = connection.recv(1 << 16)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().rpartition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += connection.recv(1 << 16)
    except ConnectionError:
        return b""
    return head + b"\r\n\r\n" + body


def answer(connection, _request):
    connection.sendall(OK)


def echo(connection, request):
    body = request.partition(b"\r\n\r\n")[2]
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def hang_up(_connection, _request):
    return False


def half(connection, _request):
    connection.sendall(OK[:-1])
    return False


def say(text):
    def act(connection, _request):
        connection.sendall(text)

    return act


@pytest.fixture
def serve():
    """Give ``serve(*script)``: a server on a port of its own."""
    made = []

    def start(*script):
        made.append(Scripted(*script))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def caller():
    made = Caller()
    yield made
    made.close()


@pytest.fixture
def ask(caller):
    """Give ``ask(server, body)``."""

    def send(server, body=b"x", *, repeatable=True, timeout=5.0, headers=None):
        payload = Payload(body, headers or {})
        return caller.call(
            server.url, "iris", payload, revision=None, timeout=timeout, repeatable=lambda: repeatable
        ).body

    return send


def test_one_connection_serves_requests_that_follow_each_other(serve, ask):
    server = serve()
    assert [ask(server) for _each in range(5)] == [b"ok"] * 5
    assert server.connections == 1


def test_a_request_leaves_in_one_piece(serve, ask):
    """A server that is woken by a head alone does its work twice."""
    seen = []

    class Once(Scripted):
        def _serve(self, connection):
            with connection:
                seen.append(connection.recv(1 << 16))
                connection.sendall(OK)

    server = Once()
    try:
        assert ask(server, b"body") == b"ok"
    finally:
        server.close()
    assert seen[0].endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 5_000_000])
def test_bodies_of_any_size_go_and_come_whole(serve, ask, size):
    body = os.urandom(size)
    server = serve(echo)
    assert ask(server, body, timeout=30) == body


def test_an_answer_in_pieces_is_put_together(serve, ask):
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    def drip(connection, _request):
        for at in range(len(chunked)):
            connection.sendall(chunked[at : at + 1])

    server = serve(drip)
    assert ask(server) == b"abcde"
    assert ask(server) == b"ok"
    assert server.connections == 1


def test_a_connection_that_was_closed_while_idle_is_not_used_again(serve, ask, wait_until):
    """Whatever the model allows: nothing was sent."""
    closed = threading.Event()

    def answer_and_close(connection, _request):
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()
        return False

    server = serve(answer_and_close)
    ask(server, repeatable=False)
    assert closed.wait(5)
    assert ask(server, repeatable=False) == b"ok"
    assert (server.connections, len(server.requests)) == (2, 2)


def test_a_connection_is_not_used_again_when_the_server_says_so(serve, ask):
    server = serve(say(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"))
    assert ask(server) == ask(server) == b"ok"
    assert server.connections == 2


def test_a_connection_with_more_than_one_answer_is_not_used_again(serve, ask):
    server = serve(say(OK + OK[:-2] + b"no"))
    assert ask(server) == ask(server) == b"ok"
    assert server.connections == 2


def test_an_old_connection_is_not_used_again(serve, ask, monkeypatch):
    """The server would close it soon, perhaps just when the next request is on its way."""
    server = serve()
    ask(server)
    monkeypatch.setattr(connections, "_IDLE_S", 0.0)
    ask(server)
    assert server.connections == 2


def test_a_request_whose_connection_broke_is_sent_once_more(serve, ask):
    server = serve(answer, hang_up)
    assert ask(server) == ask(server) == b"ok"
    assert len(server.requests) == 3


def test_a_model_that_may_not_be_asked_twice_is_not(serve, ask):
    server = serve(answer, hang_up)
    ask(server)
    with pytest.raises(UnavailableError, match="may have been predicted"):
        ask(server, repeatable=False)
    assert len(server.requests) == 2


def test_a_request_that_breaks_every_connection_is_sent_twice_and_no_more(serve, ask):
    server = serve(hang_up, hang_up)
    with pytest.raises(UnavailableError, match="broke"):
        ask(server)
    assert len(server.requests) == 2


def test_nothing_is_sent_again_once_a_part_of_the_answer_came(serve, ask):
    server = serve(half)
    with pytest.raises(UnavailableError, match="broke"):
        ask(server)
    assert len(server.requests) == 1


def test_an_answer_that_is_no_http_is_a_broken_connection(serve, ask):
    server = serve(say(b"SSH-2.0-server\r\n"), say(b"SSH-2.0-server\r\n"))
    with pytest.raises(UnavailableError, match="broke"):
        ask(server)


def test_the_answer_that_came_too_late_is_not_given_to_the_next(serve, ask, monkeypatch):
    monkeypatch.setattr("modeldeploy.backends.local.invoke._MARGIN_S", 0.0)
    late = threading.Event()

    def wait(connection, _request):
        late.wait(5)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")

    server = serve(wait)
    with pytest.raises(UnavailableError, match=r"within 0\.05 s"):
        ask(server, timeout=0.05)
    late.set()
    assert ask(server) == b"ok"


def test_a_refusal_is_read_although_the_body_was_not_wanted(serve, ask):
    refusal = b'HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 25\r\n\r\n{"error":"far too large"}'

    class Early(Scripted):
        def _serve(self, connection):
            with connection:
                connection.recv(1 << 10)
                connection.sendall(refusal)
                connection.shutdown(socket.SHUT_WR)
                # Reads on for a while, as the front does, so that the refusal is not lost in a reset.
                connection.settimeout(5)
                for _each in range(50):
                    connection.recv(1 << 16)

    server = Early()
    try:
        with pytest.raises(InvalidRequestError, match="far too large"):
            ask(server, bytes(64 << 20))
    finally:
        server.close()


def test_nobody_at_the_address_is_told_apart(ask):
    server = Scripted()
    server.close()
    with pytest.raises(StaleAddressError):
        ask(server)


@pytest.mark.parametrize("value", ["a\r\nevil: 1", "a\nb", "a\x00b", "\u20ac"])
def test_a_header_that_cannot_be_one_is_refused(serve, ask, value):
    server = serve()
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        ask(server, headers={"modeldeploy-key": value})
    assert server.requests == []


def test_threads_get_their_own_answers(serve, ask):
    server = serve(*[echo] * 2_000)
    wrong = []

    def hammer(number):
        for at in range(100):
            body = f"{number}-{at}".encode()
            if ask(server, body) != body:
                wrong.append(body)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(server.requests) == 2_000
    assert server.connections <= 20


def test_no_more_connections_are_kept_than_are_worth_it(serve, ask, caller, monkeypatch):
    monkeypatch.setattr(connections, "_KEPT", 2)
    together = threading.Barrier(5)

    def wait(connection, request):
        together.wait(5)
        echo(connection, request)

    server = serve(*[wait] * 5)
    threads = [threading.Thread(target=ask, args=(server,)) for _each in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (idle,) = caller._connections._idle.values()
    assert [len(kept) for kept in idle._kept.values()] == [2]


def test_addresses_that_nobody_asks_any_more_are_let_go(serve, ask, caller, monkeypatch):
    ask(serve())
    monkeypatch.setattr(connections, "_IDLE_S", 0.0)
    ask(serve())
    (idle,) = caller._connections._idle.values()
    assert len(idle._kept) == 1


def test_a_caller_that_is_dropped_closes_its_connections(serve):
    server = serve()
    caller = Caller()
    caller.call(server.url, "iris", Payload(b"", {}), revision=None, timeout=5, repeatable=lambda: True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del caller
        gc.collect()
    assert [str(each.message) for each in seen] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # of forking with threads, which is what is tested
def test_a_forked_process_leaves_its_parents_connection_alone(serve, ask):
    server = serve(*[echo] * 100)
    ask(server, b"before")
    child = os.fork()
    if not child:
        try:
            right = all(ask(server, f"child {at}".encode()) == f"child {at}".encode() for at in range(20))
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    for at in range(20):
        body = f"parent {at}".encode()
        assert ask(server, body) == body
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask(server, b"after") == b"after"
    # One of the parent, which outlived the child, and one of the child.
    assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_a_thread_holds_the_lock_does_not_hang_the_child(serve, ask, caller):
    server = serve()
    ask(server)
    (idle,) = caller._connections._idle.values()
    with idle._lock:
        child = os.fork()
        if not child:
            try:
                os._exit(0 if ask(server) == b"ok" else 1)
            finally:
                os._exit(2)
        deadline = time.monotonic() + 20
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
    if done == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert done[0] == child
    assert os.waitstatus_to_exitcode(done[1]) == 0
