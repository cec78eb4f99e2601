"""A head that is sent again is not read again; nobody may notice but by the time it takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modeldeploy.serving.answers import AnswerHeads
from modeldeploy.serving.connection import Connection
from modeldeploy.serving.head import Head, Repeat
from modeldeploy.serving.http import HttpServer
from modeldeploy.serving.limits import Limits
from modeldeploy.serving.messages import Request, Response, failure, json_response

LIMITS = Limits(max_body=1000, max_head=2000, max_headers=20)
HEADS = AnswerHeads()
"""For all, so that their answers have one date."""


class Client(asyncio.Transport):
    """Feeds a connection in pieces of its choice, which a socket would not keep apart."""

    def __init__(self, loop, handler, *, gate=None, limits=LIMITS, server=None):
        super().__init__()
        self.server = server or HttpServer(handler, limits, gate=gate)
        self.server.heads = HEADS
        self.connection = Connection(self.server, loop)
        self.written = b""
        self.connection.connection_made(self)

    async def send(self, *pieces):
        for piece in pieces:
            self.connection.data_received(piece)
            for _turn in range(4 + 4 * piece.count(b"HTTP/1.1")):
                await asyncio.sleep(0)
        answers, self.written = self.written, b""
        return answers

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def can_write_eof(self):
        return False

    def close(self):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


async def echo(request: Request) -> Response:
    return json_response(200, [request.method, request.path, request.query, request.body.decode(), request.headers])


def post(body: bytes = b"{}", path: str = "/a", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def run(main):
    return asyncio.run(main)


def remembers(client: Client) -> bool:
    return client.connection._repeat is not None


def test_the_same_head_brings_the_body_that_comes_with_it():
    async def main():
        client = Client(asyncio.get_running_loop(), echo)
        head = ("/a", "Connection: Keep-Alive")
        first, second = await client.send(post(b"[1]", *head)), await client.send(post(b"[2]", *head))
        assert remembers(client)
        assert first.replace(b'"[1]"', b'"[2]"') == second

    run(main())


@pytest.mark.parametrize("header", ["Connection: close", "Expect: 100-continue", "Upgrade: websocket", "TE: trailers"])
def test_a_head_that_asks_for_more_than_an_answer_is_read_each_time(header):
    async def main():
        client = Client(asyncio.get_running_loop(), echo)
        await client.send(post(b"[1]", "/a", header))
        assert not remembers(client)

    run(main())


@pytest.mark.parametrize("cut", [20, len(post(b"")), len(post(b"")) + 1])
def test_a_request_that_comes_in_two_pieces_is_kept_and_known_again_in_two_pieces(cut):
    async def main():
        client = Client(asyncio.get_running_loop(), echo)
        answers = []
        for number in (1, 2):
            data = post(b"[%d]" % number)
            answers.append(await client.send(data[:cut], data[cut:]))
            assert remembers(client)
        assert [answer.count(b"HTTP/1.1 200") for answer in answers] == [1, 1]
        assert answers[0].replace(b'"[1]"', b'"[2]"') == answers[1]

    run(main())


def test_a_body_that_is_not_whole_in_time_is_refused_and_nothing_after_it_is_read():
    async def main():
        client = Client(asyncio.get_running_loop(), echo)
        await client.send(post(b"[1]"))
        assert await client.send(post(b"[2]")[:-1]) == b""
        client.connection.check_time(asyncio.get_running_loop().time() + 2 * LIMITS.body_timeout)
        assert (await client.send(b"]")).startswith(b"HTTP/1.1 408 ")

    run(main())


def test_two_requests_in_one_piece_are_two():
    async def main():
        client = Client(asyncio.get_running_loop(), echo)
        await client.send(post(b"[1]"))
        assert (await client.send(post(b"[2]") + post(b"[3]"))).count(b"HTTP/1.1 200") == 2

    run(main())


def test_the_gate_is_asked_about_each_request_and_what_it_changes_is_not_kept():
    seen = []

    def gate(_method, _url, headers, _peer):
        seen.append(headers.pop("authorization"))
        headers["who"] = str(len(seen))
        return None if len(seen) < 3 else failure(401, "revoked")

    async def main():
        client = Client(asyncio.get_running_loop(), echo, gate=gate)
        answers = [await client.send(post(b"[1]", "/a", "Authorization: Bearer k")) for _ in range(3)]
        assert [b"200" in answers[0], b"200" in answers[1], b"401" in answers[2]] == [True] * 3
        assert b'"who":"2"' in answers[1]

    run(main())
    assert seen == ["Bearer k"] * 3


async def headers_of(request: Request) -> Response:
    seen.append(request.headers)
    return Response(200)


seen: list[Any] = []


def test_clients_with_the_same_head_share_its_headers_whatever_the_length_of_the_body():
    async def main():
        loop = asyncio.get_running_loop()
        server = HttpServer(headers_of, LIMITS)
        clients = [Client(loop, headers_of, server=server) for _ in range(2)]
        for body in (b"{}", b"[1, 2, 3]", b""):
            for client in clients:
                assert b"200 OK" in await client.send(post(body))
        assert all(headers is seen[-1] for headers in seen[2:])
        assert seen[-1] == {"host": "x"}

    seen.clear()
    run(main())


def test_a_gate_that_may_change_its_mind_is_given_headers_of_its_own():
    async def main():
        client = Client(asyncio.get_running_loop(), headers_of, gate=lambda *_judged: None)
        for _ in range(3):
            await client.send(post())
        assert seen[1] == seen[2]
        assert seen[1] is not seen[2]
        other = Client(asyncio.get_running_loop(), headers_of, server=client.server)
        await other.send(post())
        assert other.connection._repeat is not client.connection._repeat

    seen.clear()
    run(main())


def test_a_body_above_the_limit_is_refused_for_a_repeated_head_too():
    async def main():
        client = Client(asyncio.get_running_loop(), echo, limits=Limits(max_body=5))
        await client.send(post(b"12345"))
        assert remembers(client)
        assert b"413" in await client.send(post(b"123456"))

    run(main())


@pytest.mark.parametrize("length", [b"1_0", b"+2", b"2 ", b"", b"-1", b"\xb2", b"9" * 5000])
def test_a_length_that_is_no_number_is_left_to_the_reader(length):
    async def main():
        client = Client(asyncio.get_running_loop(), echo)
        await client.send(post(b"[]"))
        data = post(b"[]").replace(b"Content-Length: 2", b"Content-Length: " + length)
        plain = Client(asyncio.get_running_loop(), echo)
        assert await client.send(data) == await plain.send(data)

    run(main())


def test_bodies_that_are_held_are_counted_for_a_repeated_head_too():
    async def main():
        client = Client(asyncio.get_running_loop(), echo, limits=Limits(max_body=1000, max_held=10))
        await client.send(post(b"12345678"))
        assert remembers(client)
        client.server.held += 5
        assert b"503" in await client.send(post(b"12345678"))
        assert client.server.held == 5

    run(main())


PIECES = st.lists(st.integers(1, 400), max_size=6)
BODIES = st.sampled_from([b"", b"[1]", b"[2]", b"[10]", b"\r\n\r\n", post(b"[9]")])
REQUESTS = st.lists(
    st.builds(post, BODIES, st.sampled_from(["/a", "/b?x=1"]), st.sampled_from(["Accept: */*", "X-Y: 1"])), max_size=6
)


@given(requests=REQUESTS, cuts=PIECES)
@example(requests=[post(b"[1]"), post(b"[2]")], cuts=[len(post(b"[1]"))])
def test_however_the_bytes_are_cut_the_answers_are_those_of_one_request_at_a_time(requests, cuts):
    async def main():
        loop = asyncio.get_running_loop()
        alone = [await Client(loop, echo).send(request) for request in requests]
        assert await Client(loop, echo).send(*requests) == b"".join(alone)
        data = b"".join(requests)
        pieces = []
        for cut in cuts:
            pieces.append(data[:cut])
            data = data[cut:]
        assert await Client(loop, echo).send(*[piece for piece in (*pieces, data) if piece]) == b"".join(alone)

    run(main())


def test_nothing_is_remembered_of_bytes_without_the_end_of_a_head():
    assert Repeat.of(b"abc", Head("GET", b"/", {}, old=False)) is None
    assert Repeat.of(b"", Head("GET", b"/", {}, old=False)) is None
