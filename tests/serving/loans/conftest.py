"""A front in the loop of the test, workers that are processes of their own, and clients that say exactly what they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from modeldeploy.packaging.package import package
from modeldeploy.serving.group import Group, Policy
from modeldeploy.serving.http import HttpServer
from modeldeploy.serving.ledger import Position
from modeldeploy.serving.limits import Limits
from modeldeploy.serving.router import Router, Table

DEADLINE_S = 20


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


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("loans")


@pytest.fixture
def gate(folder) -> Path:
    """Give the file that lets a waiting model go on; ``.entered`` beside it says that one waits."""
    made = folder / "gate"
    for path in (made, made.with_suffix(".entered")):
        path.unlink(missing_ok=True)
    return made


@pytest.fixture(scope="session")
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

    deadline_s = DEADLINE_S
    enough, many = 4, 500
    """Requests after which a client is usually lent, and after which it surely is."""

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
        for number in range(self.many):
            await client.doubles(number, **how)
            if len(self.group.lending) > before:
                return client
        raise AssertionError(self.many)

    def read(self) -> int:
        """Give how much of the only client's bytes was read, by whatever process."""
        (connection,) = self.server.connections
        with socket.socket(fileno=os.dup(connection.descriptor())) as sock:
            return Position.of(sock).read

    async def connect(self, worker: str) -> None:
        """Let one more worker serve the first revision."""
        await self.group.connect(worker, str(self._folder / worker))

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
