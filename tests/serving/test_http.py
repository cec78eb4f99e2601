from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import attrs
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving.http import HttpServer
from modeldeploy.serving.limits import Limits
from modeldeploy.serving.messages import Request, Response, json_response

HOST = b"Host: x\r\n"
LIMITS = Limits(max_body=1000, max_head=2000, max_headers=20, linger=0.0)
DEADLINE = 10.0


_loops: list[object] = []


@pytest.fixture(autouse=True, params=["asyncio", "uvloop"])
def loop_factory(request):
    """Everything must hold on both loops: uvloop serves where it exists."""
    factory = pytest.importorskip("uvloop").new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    _loops.append(factory)
    yield
    _loops.clear()


def go(main):
    with asyncio.Runner(loop_factory=_loops[-1]) as runner:
        return runner.run(main)


async def echo(request: Request) -> Response:
    if request.path == "/fail":
        message = "secret"
        raise RuntimeError(message)
    return json_response(200, [request.method, request.path, request.query, request.body.decode("latin-1")])


async def until(condition) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def serving(handler=echo, limits=LIMITS):
    server = HttpServer(handler, limits)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await server.start(sock)
    try:
        yield server, port
    finally:
        server.close()
        await until(lambda: not server.connections)


async def exchange(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    received = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    return received


def talk(*parts: bytes, limits=LIMITS, handler=echo) -> list[tuple[int, dict[str, str], bytes]]:
    """Send this on one connection that the server closes in the end; give the answers."""

    async def run():
        async with serving(handler, limits) as (_server, port):
            return await exchange(port, *parts)

    return list(answers(go(run())))


def answers(data: bytes):
    while data:
        head, _blank, data = data.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = dict(each.lower().split(": ", 1) for each in lines)
        size = int(headers.get("content-length", 0))
        yield int(line.split()[1]), headers, data[:size]
        data = data[size:]


def post(body: bytes, extra: bytes = b"Connection: close\r\n", path: bytes = b"/x") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n%b" % (path, len(body), extra, body)


def test_a_request_is_passed_on_whole_and_its_target_decoded():
    ((status, headers, body),) = talk(post(b"abc", path=b"/a%20b%2Bc?d=%20e"))
    assert (status, json.loads(body)) == (200, ["POST", "/a b+c", "d=%20e", "abc"])
    assert headers["connection"] == "close"
    assert headers["date"].endswith("gmt")


def test_pipelined_requests_are_answered_in_their_order():
    async def slow_first(request: Request) -> Response:
        await asyncio.sleep(0.05 if request.body == b"0" else 0)
        return Response(200, request.body)

    many = 40
    data = b"".join(post(b"%d" % at, b"Connection: close\r\n" if at == many - 1 else b"") for at in range(many))
    found = talk(data, handler=slow_first)
    assert [body for _status, _headers, body in found] == [b"%d" % at for at in range(many)]


def test_a_chunked_body_is_put_together_and_its_trailer_dropped():
    head = b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    ((status, _headers, body),) = talk(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\nHost: evil\r\n\r\n")
    assert (status, json.loads(body)[3]) == (200, "abcde")


def test_expect_100_is_answered_before_the_body():
    async def run():
        async with serving() as (_server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
            writer.write(b"ok")
            second = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
            writer.close()
            return first, second

    first, second = go(run())
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.startswith(b"HTTP/1.1 200")


def test_expect_100_with_a_body_too_large_is_refused_before_it_is_sent():
    ((status, _headers, _body),) = talk(
        b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
    )
    assert status == 413


def test_head_gets_the_length_and_no_body():
    async def run():
        async with serving() as (_server, port):
            return await exchange(port, b"HEAD /x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")

    head, _blank, body = go(run()).partition(b"\r\n\r\n")
    assert b"content-length: 19" in head
    assert not body


def test_an_old_client_is_kept_only_when_it_asks():
    ((_status, headers, _body),) = talk(b"GET /x HTTP/1.0\r\n\r\n")
    assert headers["connection"] == "close"
    kept, closed = talk(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /y HTTP/1.0\r\n\r\n")
    assert (kept[1]["connection"], closed[1]["connection"]) == ("keep-alive", "close")


def test_an_upgrade_is_answered_as_plain_http_and_closed():
    ((status, headers, _body),) = talk(
        b"GET /x HTTP/1.1\r\n"
        + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n"
    )
    assert (status, headers["connection"]) == (200, "close")


def test_the_absolute_form_of_a_target_is_read():
    ((_status, _headers, body),) = talk(b"GET http://x/a?b=c HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert json.loads(body)[1:3] == ["/a", "b=c"]


MALFORMED = {
    "not HTTP": (b"\x16\x03\x01rubbish\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and a length": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "an unknown coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "a coding twice": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a length that is no number": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: ten\r\n\r\n", 400),
    "a negative length": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "a length beyond all": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    "no length": (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", 411),
    "a body too large": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1001\r\n\r\n", 413),
    "chunks too large": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n" * 11,
        400,
    ),
    "endless chunks": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"64\r\n" + b"x" * 100 + b"\r\n") * 11,
        413,
    ),
    "a bad chunk size": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "a compressed body": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 415),
    "an unknown expectation": (b"POST / HTTP/1.1\r\n" + HOST + b"Expect: tea\r\nContent-Length: 1\r\n\r\nx", 417),
    "too many headers": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 30 + b"\r\n", 431),
    "a header without end": (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 3000, 431),
    "a long header": (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 3000 + b"\r\n\r\n", 431),
    "a long target": (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    "a folded header": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c: d\r\n\r\n", 400),
    "a space before the colon": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length : 3\r\n\r\nabc", 400),
    "a bare line feed": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a null byte": (b"GET / HTTP/1.1\r\n" + HOST + b"A: \x00\r\n\r\n", 400),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a target that is no path": (b"GET \xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n", 400),
}


@pytest.mark.parametrize(("data", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_get_their_status_as_json_and_the_connection_ends(data, expected):
    ((status, headers, body),) = talk(data)
    assert status == expected
    assert headers["connection"] == "close"
    assert json.loads(body).keys() == {"error", "field"}


def test_nothing_after_a_refused_request_is_answered():
    smuggled = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + post(b"x")
    )
    assert [status for status, _headers, _body in talk(smuggled)] == [400]


def test_requests_before_a_refused_one_are_answered_first():
    assert [status for status, _headers, _body in talk(post(b"x", b"") + b"rubbish\r\n\r\n")] == [200, 400]


@pytest.mark.parametrize(
    "parts",
    [(b"GET / HTTP/1.1\r\nHo",), (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",)],
    ids=["head", "body"],
)
def test_a_client_that_is_too_slow_is_told_and_cut_off(parts):
    limits = attrs.evolve(LIMITS, header_timeout=0.1, body_timeout=0.1)
    ((status, _headers, _body),) = talk(*parts, limits=limits)
    assert status == 408


def test_a_client_that_says_nothing_is_cut_off_without_a_word():
    assert talk(limits=attrs.evolve(LIMITS, header_timeout=0.1)) == []


def test_an_idle_connection_is_closed_after_its_time():
    assert [s for s, _h, _b in talk(post(b"x", b""), limits=attrs.evolve(LIMITS, idle_timeout=0.1))] == [200]


def test_a_body_that_drips_is_cut_off_though_it_never_stops():
    async def run():
        limits = attrs.evolve(LIMITS, body_timeout=0.15, min_rate=1_000_000)
        async with serving(limits=limits) as (_server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
            answer = asyncio.ensure_future(reader.read())
            while not answer.done():
                writer.write(b"x")
                await asyncio.wait([answer], timeout=0.02)
            writer.close()
            return answer.result()

    assert go(asyncio.wait_for(run(), DEADLINE)).startswith(b"HTTP/1.1 408")


def test_a_client_that_never_reads_is_cut_off():
    async def large(_request: Request) -> Response:
        return Response(200, b"x" * 32_000_000)

    async def run():
        async with serving(large, attrs.evolve(LIMITS, write_timeout=0.1)) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(post(b"x", b""))
            await writer.drain()
            await until(lambda: server.connections)
            await until(lambda: not server.connections)
            writer.close()
            return reader

    go(asyncio.wait_for(run(), DEADLINE))


def test_more_connections_than_allowed_are_told_to_come_back():
    async def run():
        async with serving(limits=attrs.evolve(LIMITS, max_connections=1)) as (_server, port):
            _reader, first = await asyncio.open_connection("127.0.0.1", port)
            first.write(b"GET")
            await first.drain()
            second = await exchange(port)
            first.close()
            return second

    ((status, headers, _body),) = answers(go(run()))
    assert (status, headers["retry-after"]) == (503, "1")


def test_bodies_beyond_the_memory_of_all_together_are_told_to_come_back():
    async def run():
        async with serving(limits=attrs.evolve(LIMITS, max_held=150)) as (server, port):
            reader, first = await asyncio.open_connection("127.0.0.1", port)
            first.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n" + b"x" * 100)
            await until(lambda: server.held >= 100)
            second = await exchange(port, post(b"y" * 100))
            first.write(b"x")
            one = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
            first.close()
            third = await exchange(port, post(b"y" * 100))
            return one, second, third, server.held

    one, second, third, held = go(run())
    assert [data.split()[1] for data in (one, second, third)] == [b"200", b"503", b"200"]
    assert held == 0


def test_a_handler_that_fails_is_a_500_without_its_words(caplog):
    ((status, _headers, body),) = talk(post(b"x", path=b"/fail"))
    assert status == 500
    assert b"secret" not in body
    assert "secret" in caplog.text


def test_a_plain_handler_that_raises_is_a_500_too(caplog):
    def handler(_request: Request):
        message = "secret"
        raise RuntimeError(message)

    ((status, _headers, body),) = talk(post(b"x"), handler=handler)
    assert (status, b"secret" in body) == (500, False)


def test_what_comes_after_a_refusal_is_thrown_away():
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5000\r\n\r\n"
    assert [status for status, _h, _b in talk(head, *[b"x" * 1000] * 5)] == [413]


def test_a_client_that_stopped_sending_still_gets_its_answer():
    async def run():
        async def slow(request: Request) -> Response:
            await asyncio.sleep(0.05)
            return Response(200, request.body)

        async with serving(slow) as (_server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(b"x", b""))
            writer.write_eof()
            received = await asyncio.wait_for(reader.read(), DEADLINE)
            writer.close()
            return received

    ((status, headers, body),) = answers(go(run()))
    assert (status, headers["connection"], body) == (200, "close", b"x")


def test_an_answer_for_a_client_that_left_is_dropped():
    async def run():
        entered, release = asyncio.Event(), asyncio.Event()

        async def handler(_request: Request) -> Response:
            entered.set()
            await release.wait()
            return Response(200)

        async with serving(handler) as (server, port):
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(b"x", b"") * 3)
            await entered.wait()
            writer.transport.abort()
            release.set()
            await until(lambda: not server.connections)
            assert server.held == 0

    go(run())


def test_far_more_connections_than_allowed_are_not_even_answered():
    async def run():
        async with serving(limits=attrs.evolve(LIMITS, max_connections=1)) as (_server, port):
            held = [await asyncio.open_connection("127.0.0.1", port) for _each in range(2)]
            await asyncio.wait_for(held[1][0].readline(), DEADLINE)
            try:
                last = await exchange(port)
            except ConnectionError:
                last = b""
            for _reader, writer in held:
                writer.close()
            return last

    assert go(run()) == b""


def test_a_handler_may_give_a_future():
    def handler(request: Request) -> asyncio.Future[Response]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(Response(200, request.body))
        return future

    assert [body for _status, _headers, body in talk(post(b"abc"), handler=handler)] == [b"abc"]


def test_draining_answers_what_is_in_flight_and_says_close():
    async def run():
        release, entered = asyncio.Event(), asyncio.Event()

        async def handler(_request: Request) -> Response:
            entered.set()
            await release.wait()
            return Response(200, b"done")

        async with serving(handler, attrs.evolve(LIMITS, linger=0.05)) as (server, port):
            _reader, idle = await asyncio.open_connection("127.0.0.1", port)
            busy = asyncio.ensure_future(exchange(port, post(b"x", b"")))
            await entered.wait()
            draining = asyncio.ensure_future(server.drain(DEADLINE))
            await asyncio.sleep(0)
            late = asyncio.ensure_future(exchange(port, post(b"y", b"")))
            await asyncio.wait([late], timeout=0.02)
            release.set()
            await draining
            idle.close()
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
            return await busy, await late

    for data in go(run()):
        ((status, headers, body),) = answers(data)
        assert (status, headers["connection"], body) == (200, "close", b"done")


def test_draining_gives_up_after_its_grace():
    async def run():
        async def handler(_request: Request) -> Response:
            await asyncio.Event().wait()
            return Response(200)

        async with serving(handler) as (server, port):
            busy = asyncio.ensure_future(exchange(port, post(b"x")))
            await until(lambda: server.held)
            await server.drain(0.05)
            with contextlib.suppress(ConnectionError):
                return await busy

    assert not go(asyncio.wait_for(run(), DEADLINE))


def test_an_answer_is_one_write_on_a_socket_without_delay():
    async def run():
        async with serving() as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(b"x", b""))
            head = await reader.readuntil(b"\r\n\r\n")
            (connection,) = server.connections
            sock = connection._transport.get_extra_info("socket")
            flag = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            buffered = len(reader._buffer)
            writer.close()
            return head, flag, buffered

    head, flag, buffered = go(run())
    assert flag == 1
    # The body lay in the same segment as the head.
    assert b"content-length: %d\r\n" % buffered in head


def test_a_limit_that_is_no_limit_is_refused():
    with pytest.raises(ConfigurationError, match="max_body"):
        Limits(max_body=-1)


def test_a_client_that_does_not_read_has_one_answer_made_and_gets_the_others_when_it_does():
    asked = []

    async def large(request: Request) -> Response:
        asked.append(request.path)
        return Response(200, b"x" * 8_000_000)

    async def run():
        async with serving(large) as (_server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(post(b"x", b"") * 4 + post(b"x"))
            await until(lambda: asked)
            for _turn in range(50):
                await asyncio.sleep(0.002)
            before = len(asked)
            received = 0
            while chunk := await reader.read(1 << 20):
                received += len(chunk)
            writer.close()
            return before, received

    before, received = go(asyncio.wait_for(run(), DEADLINE))
    assert before == 1
    assert received > 5 * 8_000_000
    assert len(asked) == 5
