"""Connections that a worker answers by itself: a front in the loop of the test, and workers that are processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from modeldeploy.packaging.package import package
from modeldeploy.serving import loans
from modeldeploy.serving.group import Group, Policy
from modeldeploy.serving.http import HttpServer
from modeldeploy.serving.ledger import PLACE_BYTES, PLACES, is_possible
from modeldeploy.serving.limits import Limits
from modeldeploy.serving.router import Router, Table

pytestmark = pytest.mark.skipif(not is_possible(), reason="connections are lent on Linux only")

DEADLINE_S = 20
WORKERS = ("w1", "w2", "w3", "w4")
ENOUGH, MANY = 4, 500
"""Requests after which a client is usually lent, and after which it surely is."""


class Doubler:
    """Twice the number; a negative number says that it is here and waits for a file, 666 fails, 999 kills."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def predict(self, table):
        import os
        import time
        from pathlib import Path

        if (table == 666).any():
            raise ValueError
        if (table == 999).any():
            os._exit(3)
        if (table < 0).any():
            Path(self.gate + ".entered").touch()
            deadline = time.monotonic() + DEADLINE_S
            while not Path(self.gate).exists() and time.monotonic() < deadline:
                time.sleep(0.005)
        return table[:, 0] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("loans")


@pytest.fixture
def gate(folder) -> Path:
    """Give the file that lets a waiting model go on; ``.entered`` beside it says that one waits."""
    made = folder / "gate"
    for path in (made, made.with_suffix(".entered")):
        path.unlink(missing_ok=True)
    return made


@pytest.fixture(scope="module")
def doubler(store, folder):
    model = Doubler(str(folder / "gate"))
    return package(model, name="doubler-of-arrays", version="1.0.0", example=np.array([[1.0], [2.0]]), store=store)


@contextlib.contextmanager
def starting(bundle, sockets: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Give a function that starts a worker of this name for a revision; it is there when the function returns."""
    with contextlib.ExitStack() as stack:

        def start(name: str, revision: str = "r1") -> subprocess.Popen:
            command = [sys.executable, "-m", "modeldeploy.serving.worker", "--bundle", str(bundle.path), "--name", "e"]
            command += ["--socket", str(sockets / name), "--revision", revision, "--trust", bundle.digest]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert json.loads(process.stdout.readline())["ready"]
            process.stdout.close()
            return process

        yield start


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    """Give a folder whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="modeldeploy-loans-") as made:
        yield Path(made)


@pytest.fixture(scope="module", autouse=True)
def lasting(doubler, sockets) -> Iterator[None]:
    """Keep a worker ``one`` of ``r1`` and ``two`` of ``r2`` for all who do them no harm."""
    with starting(doubler, sockets) as start:
        start("one")
        start("two", "r2")
        yield


@pytest.fixture
def start(doubler, sockets) -> Iterator[Callable[..., subprocess.Popen]]:
    """Give a function that starts workers for a test that harms them."""
    with starting(doubler, sockets) as start:
        yield start


class Client:
    """A kept-alive connection that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @staticmethod
    def request(*values: float, path: str = "/invocations", headers: str = "") -> bytes:
        body = json.dumps({"instances": [[value] for value in values]}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def read(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(DEADLINE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            headers = dict(field.split(": ", 1) for field in fields)
            return int(line.split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def ask(self, *values: float, **how: str) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(self.request(*values, **how))
        return await self.read()

    async def doubles(self, *values: float, **how: str) -> dict[str, str]:
        """Ask, see that the answer is right, and give its headers."""
        status, headers, body = await self.ask(*values, **how)
        assert (status, json.loads(body)) == (200, {"predictions": [2 * value for value in values]}), body
        return headers


class Town:
    """An endpoint with one or more revisions, and its clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.router = Router("e")
        self.events: list[tuple[str, str]] = []
        self.clients: list[Client] = []

    async def start(self, *workers: str, **policy: object) -> None:
        self.group = await self.add("r1", *workers, **policy)
        self.router.install(Table.of({"r1": 100}, "r1"))
        self.server = HttpServer(self.router.handle, Limits(linger=0.0), lender=self.router.lend)
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.server.start(sock)

    async def add(self, revision: str, *workers: str, **policy: object) -> Group:
        meter = self.router.meter(revision)
        group = Group(revision, Policy(**policy), meter, report=lambda *event: self.events.append(event))
        self.router.groups[revision] = group
        for worker in workers:
            await group.connect(worker, str(self._folder / worker))
        return group

    async def client(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def borrower(self, **how: str) -> Client:
        """Give a client whom a worker has."""
        client, before = await self.client(), len(self.group.lending)
        for number in range(MANY):
            await client.doubles(number, **how)
            if len(self.group.lending) > before:
                return client
        raise AssertionError(MANY)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        for client in self.clients:
            client.writer.close()
        await self.until(lambda: not self.server.connections)
        self.server.close()
        for group in self.router.groups.values():
            group.close()
        await self.until(lambda: all(not len(group.lending) for group in self.router.groups.values()))


@contextlib.asynccontextmanager
async def town(folder: Path, *workers: str, **policy: object) -> AsyncIterator[Town]:
    made = Town(folder)
    await made.start(*workers, **policy)
    try:
        yield made
    finally:
        await made.end()


@pytest.fixture(params=["asyncio", "uvloop"])
def go(request, sockets):
    """Give ``go(story, *workers, **policy)``: tell a story of a town, on both loops."""
    factory = pytest.importorskip("uvloop").new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(story, *workers: str, **policy: object) -> None:
        async def main() -> None:
            async with town(sockets, *(workers or ("one",)), **policy) as made:
                await story(made)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


# ---------------------------------------------------------------- lent, and taken back


def test_a_client_that_asks_the_same_way_is_lent_and_sees_no_difference(go):
    async def story(town: Town) -> None:
        client = await town.client()
        first = await client.doubles(1)
        lent = await town.borrower()
        again = [await lent.doubles(number) for number in range(20)]
        assert len(town.group.lending) == 1
        assert {**first, "date": ""} == {**again[1], "date": ""}

    go(story)


def test_what_a_worker_answers_by_itself_is_counted_once(go):
    async def story(town: Town) -> None:
        client = await town.borrower()
        meter = town.router.meter("r1")
        town.router.harvest()
        before = meter.outcomes["ok"]
        for number in range(20):
            await client.doubles(number)
        town.router.harvest()
        window = meter.window(0, 1e12, share=100)
        assert (meter.outcomes["ok"], sum(meter.buckets)) == (before + 20, before + 20)
        assert (window.requests, window.assigned, sum(window.latency.values())) == (before + 20,) * 3
        assert 0 < meter.seconds_sum < DEADLINE_S
        assert town.router.readings()[0].inflight == 0

    go(story)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (Client.request(1, path="/v2/models/e/versions/nope/infer"), 404),
        (Client.request(1, headers="accept: application/json\r\n"), 200),
        (Client.request(666), 500),
        (Client.request()[:-1] + b"?", 400),
        (Client.request(*[1] * 30_000), 200),
        (b"nonsense\r\n\r\n", 400),
    ],
    ids=["page", "path", "headers", "failure", "body", "large", "nonsense"],
)
def test_whatever_else_a_lent_client_says_is_answered_by_the_front(go, said, status):
    async def story(town: Town) -> None:
        client = await town.borrower()
        client.writer.write(said)
        assert (await client.read())[0] == status
        assert not len(town.group.lending)
        if status != 400 or b"nonsense" not in said:
            await client.doubles(3)

    go(story)


def test_requests_in_one_piece_are_answered_in_their_order(go):
    async def story(town: Town) -> None:
        client = await town.borrower()
        client.writer.write(b"".join(client.request(number) for number in range(5)))
        answers = [json.loads((await client.read())[2]) for _each in range(5)]
        assert answers == [{"predictions": [2 * number]} for number in range(5)]

    go(story)


@pytest.mark.parametrize("cut", [1, 40, -20, -1])
def test_a_request_in_two_pieces_is_one(go, cut):
    async def story(town: Town) -> None:
        client = await town.borrower()
        for number in range(5):
            data = client.request(number)
            client.writer.write(data[:cut])
            await client.writer.drain()
            await asyncio.sleep(
                0.005
            )  # no event tells that the first piece was read; when it was not, there is one piece
            client.writer.write(data[cut:])
            assert json.loads((await client.read())[2]) == {"predictions": [2 * number]}

    go(story)


def test_clients_that_send_head_and_body_apart_are_lent_too(go):
    async def story(town: Town) -> None:
        client = await town.client()
        for number in range(20):
            head, body = client.request(number).split(b"\r\n\r\n")
            client.writer.write(head + b"\r\n\r\n")
            await asyncio.sleep(0)
            client.writer.write(body)
            assert json.loads((await client.read())[2]) == {"predictions": [2 * number]}
        assert len(town.group.lending) == 1

    go(story)


def test_who_goes_away_is_forgotten_by_both(go):
    async def story(town: Town) -> None:
        client = await town.borrower()
        client.writer.close()
        await town.until(lambda: not len(town.group.lending) and not town.server.connections)

    go(story)


def test_who_closes_one_half_gets_the_answer_and_the_end(go):
    async def story(town: Town) -> None:
        client = await town.borrower()
        client.writer.write(client.request(4))
        client.writer.write_eof()
        assert json.loads((await client.read())[2]) == {"predictions": [8]}
        with pytest.raises(asyncio.IncompleteReadError):
            await client.read()

    go(story)


def test_who_does_not_read_gets_every_answer_whole_in_the_end(go):
    rows = [1] * 5_000

    async def story(town: Town) -> None:
        client = await town.borrower()
        client.writer.transport.pause_reading()
        sent, large = 0, client.request(*rows)
        assert len(large) < PLACE_BYTES
        lent = len(town.group.lending)
        while len(town.group.lending) == lent:  # until an answer does not fit into the system's buffers any more
            client.writer.write(large)
            sent += 1
            await town.until(lambda: not client.writer.transport.get_write_buffer_size() or not len(town.group.lending))
            await asyncio.sleep(0.002)
        client.writer.transport.resume_reading()
        for _each in range(sent):
            assert json.loads((await client.read())[2])["predictions"] == [2 * row for row in rows]

    go(story)


@pytest.mark.parametrize("go", ["uvloop"], indirect=True)
def test_a_silent_client_is_the_front_s_again(go, monkeypatch):
    async def story(town: Town) -> None:
        client = await town.borrower()
        await town.until(lambda: not len(town.group.lending))
        await client.doubles(5)

    go(story)


# ---------------------------------------------------------------- who is lent


@pytest.mark.parametrize("headers", ["modeldeploy-revision: r1\r\n", "modeldeploy-timeout: 5\r\n"])
def test_who_asks_for_something_of_his_own_is_not_lent(go, headers):
    async def story(town: Town) -> None:
        client = await town.client()
        for number in range(3 * ENOUGH):
            await client.doubles(number, headers=headers)
        assert not len(town.group.lending)

    go(story)


@pytest.mark.parametrize("why", ["split", "shadow", "stable", "repeats", "one who asks"])
def test_nobody_is_lent_while_there_is_something_to_decide(go, why):
    async def story(town: Town) -> None:
        await town.add("r2", "two")
        town.router.install(
            {
                "split": Table.of({"r1": 50, "r2": 50}, "r1"),
                "shadow": Table.of({"r1": 100}, "r1", {"r2": 10}),
                "stable": Table.of({"r1": 100}, "r2"),
            }.get(why, Table.of({"r1": 100}, "r1"))
        )
        client = await town.client()
        for number in range(3 * ENOUGH):
            await client.doubles(number)
        assert bool(len(town.group.lending)) is (why == "one who asks")

    go(story, retry_on_crash=why != "repeats")


def test_there_are_more_clients_than_places(go, monkeypatch):
    monkeypatch.setattr(loans, "PLACES", 2)
    assert PLACES > 2

    async def story(town: Town) -> None:
        for _each in range(2):
            await town.borrower()
        clients = [await town.client() for _each in range(2)]
        for number in range(2 * ENOUGH):
            for client in (*town.clients, *clients):
                await client.doubles(number)
        assert len(town.group.lending) == 2

    go(story)


def test_two_workers_share_the_clients_and_so_does_one_that_comes_later(go):
    async def story(town: Town) -> None:
        for _each in range(4):
            await town.borrower()
        await town.group.connect("two", str(town._folder / "two"))
        await town.until(lambda: not len(town.group.lending))
        for _each in range(MANY):
            for client in town.clients:
                await client.doubles(1)
            if len(town.group.lending) == len(town.clients):
                break
        assert sorted(len(each) for each in town.group.lending._loans.values()) == [2, 2]

    go(story)


# ---------------------------------------------------------------- changes


def test_a_new_table_holds_for_lent_clients_from_the_next_request_on(go):
    async def story(town: Town) -> None:
        await town.add("r2", "two")
        client = await town.borrower()
        await town.router.recall()
        assert not len(town.group.lending)
        town.router.install(Table.of({"r2": 100}, "r2"))
        assert (await client.doubles(1))["modeldeploy-revision"] == "r2"

    go(story)


def test_nobody_is_lent_between_the_recall_and_the_new_table(go):
    async def story(town: Town) -> None:
        client = await town.borrower()
        await town.router.recall()
        for number in range(3 * ENOUGH):
            await client.doubles(number)
        assert not len(town.group.lending)
        town.router.lends = True
        await town.borrower()

    go(story)


def test_a_change_does_not_wait_for_a_worker_that_is_busy(go, gate):
    async def story(town: Town) -> None:
        await town.add("r2", "two")
        client, other = await town.borrower(), await town.borrower()
        client.writer.write(client.request(-1))
        await town.until(gate.with_suffix(".entered").exists)
        began = asyncio.get_running_loop().time()
        await town.router.recall()
        assert asyncio.get_running_loop().time() - began < DEADLINE_S / 2
        town.router.install(Table.of({"r2": 100}, "r2"))
        assert (await other.doubles(1))["modeldeploy-revision"] == "r2"
        gate.touch()
        assert (await client.read())[1]["modeldeploy-revision"] == "r1"
        await town.until(lambda: not len(town.group.lending))
        for each in (client, other):
            assert (await each.doubles(1))["modeldeploy-revision"] == "r2"

    go(story)


def test_an_endpoint_that_ends_takes_its_clients_back_and_closes_them(go):
    async def story(town: Town) -> None:
        client = await town.borrower()
        await town.router.recall()
        await town.server.drain(5)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.read()

    go(story)


# ---------------------------------------------------------------- ends of workers


def test_a_worker_that_is_told_to_end_gives_its_clients_back(go, start):
    leaving = start("w1")
    start("w2")

    async def story(town: Town) -> None:
        client = await town.borrower()
        leaving.send_signal(signal.SIGTERM)
        for number in range(100):
            await client.doubles(number)
        await asyncio.to_thread(leaving.wait, DEADLINE_S)
        assert leaving.returncode == 0

    go(story, "w1", "w2")


@pytest.mark.parametrize("moment", ["unread", "in hand"])
def test_what_a_killed_worker_had_is_answered_by_another(go, start, gate, moment):
    killed = start("w1")

    async def story(town: Town) -> None:
        clients = [await town.borrower() for _each in range(3)]
        if moment == "unread":
            os.kill(killed.pid, signal.SIGSTOP)
            await town.until(lambda: psutil.Process(killed.pid).status() == psutil.STATUS_STOPPED)
        for number, client in enumerate(clients):
            client.writer.write(client.request(-1 - number))
        if moment == "in hand":
            await town.until(gate.with_suffix(".entered").exists)
        await asyncio.to_thread(start, "w2")
        await town.group.connect("w2", str(town._folder / "w2"))
        os.kill(killed.pid, signal.SIGKILL)
        gate.touch()
        for number, client in enumerate(clients):
            assert json.loads((await client.read())[2]) == {"predictions": [-2 - 2 * number]}
            await client.doubles(7)
        assert town.events == [("lost", "w1")]
        assert town.router.meter("r1").retried or moment == "unread"

    go(story, "w1")


def test_a_request_that_kills_is_found_and_costs_no_other_its_answer(go, start):
    for each in WORKERS:
        start(each)

    async def story(town: Town) -> None:
        client, *others = [await town.borrower() for _each in range(4)]
        client.writer.write(client.request(999))
        for _round in range(20):
            for other in others:
                await other.doubles(3)
        assert (await client.read())[0] == 500
        assert len(town.group.links) == len(WORKERS) - 2, "it is sent once more, and no third time"

    go(story, *WORKERS)


def test_clients_of_a_worker_that_is_held_up_are_answered_by_another(go, start, gate):
    for name in ("w1", "w2"):
        start(name)

    async def story(town: Town) -> None:
        clients = [await town.borrower() for _each in range(4)]
        clients[0].writer.write(clients[0].request(-1))
        await town.until(gate.with_suffix(".entered").exists)
        for client in clients[1:]:
            for number in range(3):
                await client.doubles(number)
        gate.touch()
        assert json.loads((await clients[0].read())[2]) == {"predictions": [-2]}
        await town.until(lambda: not any(loans._freed for loans in town.group.lending._loans.values()))
        assert [await client.doubles(9) for client in clients]
        assert town.events == []

    go(story, "w1", "w2")


def test_a_worker_that_stands_still_is_reported_and_its_clients_are_answered_by_another(go, start):
    stopped = start("w1")

    async def story(town: Town) -> None:
        client = await town.borrower()
        os.kill(stopped.pid, signal.SIGSTOP)
        await town.until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
        client.writer.write(client.request(3))
        await town.until(lambda: town.events == [("hung", "w1")])
        await town.group.connect("one", str(town._folder / "one"))
        os.kill(stopped.pid, signal.SIGKILL)
        assert json.loads((await client.read())[2]) == {"predictions": [6]}

    go(story, "w1", deadline_s=0.3)


def test_a_worker_that_hangs_is_reported_and_its_clients_are_told(go, start, gate):
    hanging = start("w1")

    async def story(town: Town) -> None:
        client = await town.borrower()
        client.writer.write(client.request(-1))
        await town.until(lambda: town.events == [("hung", "w1")])
        os.kill(hanging.pid, signal.SIGKILL)  # as the supervisor does
        assert (await client.read())[0] == 504
        assert town.router.meter("r1").outcomes["error"] == 1

    go(story, "w1", deadline_s=0.2)
