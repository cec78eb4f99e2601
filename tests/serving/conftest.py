"""Real bundles, real server processes, and clients that can say anything at all."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.serving.group import Group, Policy
from modeldeploy.serving.link import decode_requests, encode_responses, read_frame
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.router import Router, Table
from modeldeploy.values.metrics import Window
from modeldeploy.values.model import DType, Field, Signature

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]]


@attrs.frozen
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Served:
    """A server process and how to talk to it."""

    process: subprocess.Popen[bytes]
    host: str
    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request on a connection of its own; a body that is no bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {"content-type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, body, {**sent, **{key.replace("_", "-"): v for key, v in headers.items()}})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()})
        finally:
            connection.close()

    def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes as they are and read until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=20) as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := sock.recv(65536):
                received += chunk
            return received

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def iris(store: Store) -> Bundle:
    """A scikit-learn classifier fitted with a frame: four scalar columns, labels out."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    table, target = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=500).fit(table, target)
    return package(model, name="iris", version="1.0.0", example=table.head(), store=store)


@pytest.fixture(scope="session")
def iris_array(store: Store) -> Bundle:
    """The same fitted with an array: one tensor in, probabilities out."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    array, target = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(array, target)
    return package(model, name="iris-array", version="2.0.0", example=array[:5], method="predict_proba", store=store)


@pytest.fixture(scope="module")
def serve(tmp_path_factory) -> Iterator[Callable[..., Served]]:
    """Give ``serve(*arguments, **environ)``: start the container entry, wait for its address."""
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path_factory.mktemp("log") / "stderr"

    def start(*arguments: object, **environ: str) -> Served:
        with log.open("ab") as stderr:
            process = start_server([*map(str, arguments)], environ, stderr)
        started.append(process)
        line = process.stdout.readline()
        assert line, log.read_text()
        address = json.loads(line)
        return Served(process, address["host"], address["port"])

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start_server(arguments: list[str], environ: dict[str, str], stderr: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "modeldeploy.serving", "--port", "0", "--announce", *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL
    )


class Stub:
    """A model of a few lines: adds its columns, raises on 666, answers NaN on 777."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.sizes: list[int] = []

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        total = sum(array.reshape(len(array), -1).astype(float).sum(axis=1) for array in inputs.values())
        self.sizes.append(len(total))
        if (total == 666).any():
            message = "secret at /home/someone"
            raise RuntimeError(message)
        return {"sum": np.where(total == 777, np.nan, total)}


@pytest.fixture
def stub() -> Callable[..., Stub]:
    """Give ``stub(*fields, nullable=False)``: a model with these inputs (default: two floats) and one float output."""

    def make(*fields: Field, nullable: bool = False) -> Stub:
        fields = fields or (Field("a", DType.FLOAT64), Field("b", DType.FLOAT64))
        return Stub(Signature(inputs=fields, outputs=(Field("sum", DType.FLOAT64, (), nullable),)))

    return make


# ---------------------------------------------------------------- a router on a bench

CRASH, SILENCE = object(), object()


class Worker:
    """Listens on a Unix socket and answers each frame as ``behave`` says; keeps the sizes of the frames it was given."""

    def __init__(self, path: str, behave: Callable[[Request], object]) -> None:
        self.path = path
        self.frames: list[int] = []
        self._behave = behave

    async def start(self) -> Worker:
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task] = []
        self.server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def _accept(self, reader, writer):
        self.writers.append(writer)
        self.tasks.append(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader, writer):
        while frame := await read_frame(reader):
            requests = decode_requests(frame)
            self.frames.append(len(requests))
            answers = [(number, self._behave(request)) for number, request in requests]
            if any(answer is CRASH for _number, answer in answers):
                break
            if any(answer is SILENCE for _number, answer in answers):
                await asyncio.sleep(60)
            writer.write(encode_responses(answers))


class Bench:
    """A router with groups of workers in the loop of the test."""

    Worker = Worker
    crash, silence = CRASH, SILENCE

    def __init__(self, tmp_path) -> None:
        self._path = tmp_path
        self.router = Router("iris", draw=lambda: self.drawn)
        self.drawn = 0.0
        self.hung: list[str] = []
        self.lost: list[str] = []
        self.workers: list[Worker] = []

    def _note(self, event: str, worker: str) -> None:
        (self.hung if event == "hung" else self.lost).append(worker)

    @staticmethod
    def ok(request: Request) -> Response:
        return Response(200, request.body)

    async def close(self) -> None:
        for group in self.router.groups.values():
            group.close()
        for worker in self.workers:
            worker.server.close()
            for task in worker.tasks:
                task.cancel()
            for writer in worker.writers:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        for _turn in range(3):  # aborted connections close their sockets in the next turns of the loop
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - nobody tells; the test as a whole has a time limit
            await asyncio.sleep(0.001)

    async def add(self, revision: str, *behaviours, **policy) -> Group:
        group = Group(revision, Policy(**policy), self.router.meter(revision), report=self._note)
        self.router.groups[revision] = group
        for behave in behaviours:
            await self.join(group, behave)
        return group

    async def join(self, group: Group, behave) -> Worker:
        name = str(len(self.workers))
        return await self.join_worker(group, Worker(str(self._path / name), behave))

    async def join_worker(self, group: Group, worker: Worker) -> Worker:
        self.workers.append(await worker.start())
        await group.connect(str(len(self.workers) - 1), worker.path)
        await self.until(lambda: worker.writers)
        return worker

    async def ask(self, body: bytes = b"x", path: str = "/invocations", **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.router.handle(Request("POST", path, headers=named, body=body))

    def split(self, stable: str = "v1", shadow: dict[str, int] | None = None, key: str = "", **weights: int) -> None:
        self.router.install(Table.of(weights, stable, shadow, key))

    def seen(self, revision: str, share: int | None = None) -> Window:
        return self.router.meter(revision).window(0, 1e12, share=share)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A router to put groups and workers on; a test that is a coroutine runs on a loop of its own, and the bench is cleared after it."""
    return Bench(tmp_path)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    bench = pyfuncitem.funcargs["bench"]
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def main() -> None:
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            await bench.close()

    asyncio.run(asyncio.wait_for(main(), 20))
    return True
