"""The HTTP server in front."""

from __future__ import annotations

import http.client
import io
import socket

import pytest

from modeldeploy.simulate.server import Server


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    if path == "/broken":
        raise ValueError("nonsense")
    if path == "/lost":
        raise ConnectionAbortedError
    if path == "/parts":
        start_response("200 OK", [])
        return iter([b"a", b"", b"bc"])
    answer = f"{environ['REQUEST_METHOD']} {environ.get('CONTENT_LENGTH', '')} ".encode() + body[:20]
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


@pytest.fixture(scope="module")
def server():
    made = Server()
    made.start(application)
    yield made
    made.close()


@pytest.fixture
def connection(server):
    made = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield made
    made.close()


def ask(connection, method="POST", path="/", body=b""):
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_one_connection_carries_many_requests(connection):
    assert ask(connection, body=b"one") == (200, b"POST 3 one")
    mine = connection.sock.getsockname()
    assert ask(connection, body=b"three") == (200, b"POST 5 three")
    assert connection.sock.getsockname() == mine


def test_a_body_in_chunks_is_as_one_with_a_length(connection):
    status, body = ask(connection, body=iter([b"ab", b"c"]))
    assert (status, body) == (200, b"POST 3 abc")


def test_a_large_body_passes(connection):
    assert ask(connection, body=b"x" * 20_000_000) == (200, b"POST 20000000 " + b"x" * 20)


def test_an_answer_without_a_length_comes_in_chunks(connection):
    assert ask(connection, path="/parts") == (200, b"abc")
    assert ask(connection, body=b"next") == (200, b"POST 4 next")


def test_head_has_no_body(connection):
    assert ask(connection, "HEAD") == (200, b"")
    assert ask(connection, body=b"next") == (200, b"POST 4 next")


def test_a_failure_is_an_answer(connection, caplog):
    assert ask(connection, path="/broken")[0] == 500
    assert "POST /broken failed" in caplog.text
    assert ask(connection, body=b"next") == (200, b"POST 4 next")


def test_a_lost_answer_is_a_closed_connection(connection):
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(connection, path="/lost")


def test_closing_ends_idle_connections():
    made = Server()
    made.start(application)
    with socket.create_connection(("127.0.0.1", made.port), timeout=10) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 OK")
        made.close()
        assert idle.recv(65536) == b""


def test_a_server_that_never_started_can_be_closed():
    Server().close()


def test_storage_takes_objects_in_parts_and_gives_ranges(cloud):
    data = bytes(range(256)) * 80_000
    cloud.s3.upload_fileobj(io.BytesIO(data), cloud.simulator.bucket, "large")
    found = cloud.s3.head_object(Bucket=cloud.simulator.bucket, Key="large")
    assert found["ContentLength"] == len(data)
    part = cloud.s3.get_object(Bucket=cloud.simulator.bucket, Key="large", Range="bytes=256-511")["Body"].read()
    assert part == bytes(range(256))
