"""What stands before a handler: a real server on loopback, and clients on connections of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time

import pytest

from modeldeploy.serving import owner
from modeldeploy.serving.access import Access, Doors
from modeldeploy.serving.audit import AuditLog
from modeldeploy.serving.entrance import Entrance
from modeldeploy.serving.http import HttpServer
from modeldeploy.serving.keyring import Keyring
from modeldeploy.serving.messages import ROWS_HEADER, Request, Response, json_response

MORE_METRICS = b"metric 1\n"


@pytest.fixture
def ring(tmp_path):
    return Keyring(tmp_path / "keys.json")


async def echo(request: Request) -> Response:
    if request.path == "/fail":
        message = "secret"
        raise RuntimeError(message)
    if request.path == "/metrics":
        return Response(200, MORE_METRICS)
    answer = json_response(200, {"headers": request.headers, "body": len(request.body)})
    answer.headers["modeldeploy-revision"] = "v1"
    if ROWS_HEADER in request.headers:
        answer.headers[ROWS_HEADER] = "3"
    return answer


def post(path: str = "/score", body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Answer:
    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.decode().split("\r\n")
        self.status = int(line.split()[1])
        self.headers = dict(each.lower().split(": ", 1) for each in lines)
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)


async def read(reader: asyncio.StreamReader) -> Answer:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    answer = Answer(head.removesuffix(b"\r\n\r\n"), b"")
    answer.body = await reader.readexactly(int(answer.headers["content-length"]))
    return answer


@contextlib.asynccontextmanager
async def serving(entrance: Entrance):
    server = HttpServer(entrance.wrap(echo), gate=entrance.gate)
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start(sock)
    try:
        yield sock.getsockname()[1]
    finally:
        server.close()
        while server.connections:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


def talk(entrance: Entrance, *requests: bytes, apart: bool = True) -> list[Answer]:
    """Send each request on a connection of its own, or all on one; give the answers."""

    async def run() -> list[Answer]:
        async with serving(entrance) as port:
            found, reader = [], None
            for request in requests:
                if reader is None or apart:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                found.append(await read(reader))
                if apart:
                    writer.close()
            writer.close()
            return found

    return asyncio.run(run())


def test_without_anything_asked_for_the_handler_is_the_handler():
    """What is not asked for costs nothing: no call is added."""
    assert Entrance(Access()).wrap(echo) is echo
    open_to_all = Entrance(Access(host="0.0.0.0", auth="none"))
    assert open_to_all.wrap(echo) is echo
    assert open_to_all.gate is None
    assert Entrance(Access(allowed_hosts=("*",))).gate is None


def test_a_body_is_not_read_from_who_has_no_key(ring):
    ring.create("ana")

    async def run() -> Answer:
        async with serving(Entrance(Access(auth="keys", keys=str(ring.path)))) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n"
            )
            answer = await read(reader)
            writer.close()
            return answer

    answer = asyncio.run(run())
    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_the_secret_goes_no_further_than_the_gate(ring):
    key, token = ring.create("ana")
    (answer,) = talk(Entrance(Access(auth="keys", keys=str(ring.path))), post(Authorization=f"Bearer {token}"))
    assert "authorization" not in answer.json["headers"]
    assert answer.json["headers"]["modeldeploy-caller"] == key.id
    assert token not in answer.body.decode()


def test_who_is_calling_cannot_be_made_up(ring):
    _key, token = ring.create("ana")
    (answer,) = talk(
        Entrance(Access(auth="keys", keys=str(ring.path))),
        post(Authorization=f"Bearer {token}", modeldeploy_caller="owner", **{"modeldeploy-peer": "6.6.6.6"}),
    )
    assert answer.json["headers"]["modeldeploy-caller"] != "owner"
    assert answer.json["headers"]["modeldeploy-peer"] == "127.0.0.1"


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", "Bearer ", "Basic {token}", "{token}", "Bearer {token}x", "Bearer x{token}", "Bearer {token}, Bearer {token}", "Bearer md_owner_ffffffff_00", "Bearer md_owner__", "Bearer \xe9"],
)  # fmt: skip
def test_what_is_no_key_is_401_and_says_how(ring, shown):
    _key, token = ring.create("ana")
    entrance = Entrance(Access(auth="keys", keys=str(ring.path)), endpoint="iris")
    (answer,) = talk(entrance, post(Authorization=shown.format(token=token)))
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("bearer realm=")
    assert token not in answer.body.decode()


def test_two_authorizations_are_none(ring):
    _key, token = ring.create("ana")
    request = post(Authorization=f"Bearer {token}").replace(
        b"\r\n\r\n", f"\r\nauthorization: Bearer {token}\r\n\r\n".encode(), 1
    )
    (answer,) = talk(Entrance(Access(auth="keys", keys=str(ring.path))), request)
    assert answer.status == 401


def test_an_expired_key_ends_while_its_connection_is_open(ring, monkeypatch):
    _key, token = ring.create("ana", days=1)
    entrance = Entrance(Access(auth="keys", keys=str(ring.path)))
    now = time.time()

    async def run() -> list[int]:
        async with serving(entrance) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(Authorization=f"Bearer {token}"))
            first = await read(reader)
            monkeypatch.setattr(time, "time", lambda: now + 86_401)
            writer.write(post(Authorization=f"Bearer {token}"))
            second = await read(reader)
            writer.close()
            return [first.status, second.status]

    assert asyncio.run(run()) == [200, 401]


def test_a_scope_is_not_the_other(ring):
    _key, predict = ring.create("ana")
    _key, admin = ring.create("scraper", scopes=["admin"])
    entrance = Entrance(Access(auth="keys", keys=str(ring.path)))
    asked = [
        post(Authorization=f"Bearer {predict}"), post(Authorization=f"Bearer {admin}"),
        get("/metrics", Authorization=f"Bearer {predict}"), get("/metrics", Authorization=f"Bearer {admin}"),
        get("/anything", Authorization=f"Bearer {predict}"), get("/v2/models/iris/ready", Authorization=f"bearer  {predict}"),
    ]  # fmt: skip
    answers = talk(entrance, *asked)
    assert [answer.status for answer in answers] == [200, 403, 403, 200, 403, 200]
    assert 'scope="admin"' in answers[2].headers["www-authenticate"]


def test_the_owner_s_ticket_does_everything_and_is_not_limited(ring, tmp_path):
    owner.make_secret(tmp_path / "owner.secret")
    access = Access(auth="keys", keys=str(ring.path), owner=str(tmp_path / "owner.secret"), rate=0.001, burst=1)
    ticket = owner.ticket(owner.read_secret(tmp_path / "owner.secret"), "iris", time.time())
    asked = [post(Authorization=f"Bearer {ticket}")] * 3 + [get("/metrics", Authorization=f"Bearer {ticket}")]
    assert [answer.status for answer in talk(Entrance(access, endpoint="iris"), *asked)] == [200] * 4


def test_an_owner_s_secret_that_others_can_read_is_not_used(ring, tmp_path, caplog):
    path = tmp_path / "owner.secret"
    owner.make_secret(path)
    secret = owner.read_secret(path)
    path.chmod(0o644)
    access = Access(auth="keys", keys=str(ring.path), owner=str(path))
    ticket = owner.ticket(secret, "iris", time.time())
    (answer,) = talk(Entrance(access, endpoint="iris"), post(Authorization=f"Bearer {ticket}"))
    assert answer.status == 401
    assert "the owner's tickets are not taken" in caplog.text


def test_a_limit_keeps_the_connection_and_says_when_to_come_back():
    entrance = Entrance(Access(rate=0.5, burst=2))
    answers = talk(entrance, *[post()] * 4, get("/healthz"), apart=False)
    assert [answer.status for answer in answers] == [200, 200, 429, 429, 200]
    assert answers[2].headers["retry-after"] == "2"
    assert 'reason="rate"} 2' in entrance.metrics()


def test_each_key_has_its_own_limit_and_health_none(ring):
    _key, slow = ring.create("ana", rate=0.001, burst=1)
    _key, plain = ring.create("ben")
    entrance = Entrance(Access(auth="keys", keys=str(ring.path), rate=0.001, burst=2))
    asked = (
        [post(Authorization=f"Bearer {slow}")] * 2 + [post(Authorization=f"Bearer {plain}")] * 3 + [get("/healthz")] * 3
    )
    assert [answer.status for answer in talk(entrance, *asked)] == [200, 429, 200, 200, 429, 200, 200, 200]


def test_metrics_tell_what_was_refused(ring, tmp_path):
    _key, admin = ring.create("scraper", scopes=["admin"])
    log = AuditLog(tmp_path / "audit.jsonl")
    entrance = Entrance(Access(auth="keys", keys=str(ring.path)), endpoint="iris", log=log)
    answers = talk(
        entrance,
        post(),
        post().replace(b"localhost", b"evil.example"),
        get("/metrics", Authorization=f"Bearer {admin}"),
    )
    entrance.close()
    text = answers[-1].body.decode()
    from prometheus_client.parser import text_string_to_metric_families

    found = {
        (sample.name, sample.labels.get("reason") or sample.labels.get("fate")): sample.value
        for family in text_string_to_metric_families(text.replace(MORE_METRICS.decode(), ""))
        for sample in family.samples
    }
    assert found["modeldeploy_refused_total", "unauthenticated"] == 1
    assert found["modeldeploy_refused_total", "host"] == 1
    assert found["modeldeploy_audit_lines_total", "dropped"] == 0
    assert text.startswith(MORE_METRICS.decode())


def noted(tmp_path, *requests: bytes, **access) -> list[dict]:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    entrance = Entrance(Access(**access), endpoint="iris", log=log)
    talk(entrance, *requests)
    entrance.close()
    return [json.loads(line) for line in path.read_text().splitlines()][1:]


def test_every_request_is_noted_whatever_becomes_of_it(tmp_path, caplog):
    foreign = post().replace(b"localhost", b"evil.example")
    lines = noted(tmp_path, post(body=b"12345"), post("/fail"), foreign, post(), rate=0.001, burst=2)
    assert [line["status"] for line in lines] == [200, 500, 421, 429]
    assert (lines[0]["received"], lines[0]["rows"], lines[0]["revision"]) == (5, 3, "v1")
    assert lines[0]["sent"] > 0
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert {line["key"] for line in lines} == {""}


def test_what_a_caller_sends_cannot_forge_a_line(tmp_path):
    nasty = "a\x85\x9b\xad" + "x" * 500
    (line,) = noted(tmp_path, post("/score%0A%7B%22status%22%3A200%7D%E2%80%AE", x_request_id=nasty))
    raw = (tmp_path / "audit.jsonl").read_bytes().decode()
    assert raw.count("\n") == 2
    assert all(character.isprintable() or character == "\n" for character in raw)
    assert len(line["request"]) == 200
    assert line["path"] == '/score\ufffd{"status":200}\ufffd'


def test_the_rows_are_told_to_the_log_and_not_to_the_caller(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    entrance = Entrance(Access(), endpoint="iris", log=log)
    (answer,) = talk(entrance, post())
    entrance.close()
    assert ROWS_HEADER not in answer.headers


def test_a_route_that_nobody_thought_of_needs_the_most():
    doors = Doors()
    assert doors.scope("GET", "/healthz") is None
    for method, path in [
        ("POST", "/healthz"),
        ("GET", "/metrics"),
        ("DELETE", "/new"),
        ("GET", "/HEALTHZ"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
    ]:
        assert doors.scope(method, path).value == "admin"
