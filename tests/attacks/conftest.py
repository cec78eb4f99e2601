"""A server without and one with keys, as a container runs them, and a bundle for attackers to bend."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest

from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST
from modeldeploy.packaging.manifest import FileEntry, Manifest
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.serving.keyring import Keyring


@attrs.frozen
class Target:
    """A server process, and raw bytes to throw at it."""

    port: int
    pid: int

    def send(self, data: bytes, *, timeout: float = 10) -> bytes:
        """Send bytes as they are, say that nothing follows, and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionError):
                while chunk := sock.recv(65536):
                    received += chunk
            return received

    def statuses(self, data: bytes) -> list[int]:
        """Give the status of every answer to these bytes."""
        lines = [line for line in self.send(data).split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        return [int(line.split()[1]) for line in lines]


@pytest.fixture(scope="session")
def line(tmp_path_factory) -> Bundle:
    """A small linear model that is not pickled."""
    from sklearn.linear_model import LinearRegression

    example = np.array([[1.0, 2.0], [3.0, 4.0]])
    model = LinearRegression().fit(example, [1.0, 2.0])
    return package(model, name="line", version="1.0.0", example=example, store=Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="session")
def forge(line, tmp_path_factory) -> Callable[..., Path]:
    """Give ``forge(content={}, **changes)``: a bundle directory of the attacker's, its digests consistent with what is in it."""

    def make(
        content: dict[str, bytes] | None = None, text: Callable[[bytes], bytes] = bytes, **changes: object
    ) -> Path:
        target = tmp_path_factory.mktemp("forged")
        held = {name: line.read(name) for name in line.manifest.files} | (content or {})
        entries = {name: FileEntry.of(data) for name, data in held.items()}
        plain = {field.name: getattr(line.manifest, field.name) for field in attrs.fields(Manifest)}
        # The attacker's own tools check nothing.
        with attrs.validators.disabled():
            manifest = Manifest(**{**plain, "files": entries, **changes})
        for name, data in {**held, MANIFEST: text(manifest.to_bytes())}.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
        return target

    return make


@pytest.fixture(scope="module")
def start(line, tmp_path_factory) -> Iterator[Callable[..., Target]]:
    """Give ``start(*arguments)``: serve the model in a process of its own."""
    processes: list[subprocess.Popen[bytes]] = []
    log = tmp_path_factory.mktemp("log") / "stderr"

    def serve(*arguments: str, **environ: str) -> Target:
        command = [sys.executable, "-m", "modeldeploy.serving", "--port", "0", "--announce", "--bundle", str(line.path)]
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, env={**os.environ, **environ}
            )  # fmt: skip
        processes.append(process)
        told = process.stdout.readline()
        assert told, log.read_text()
        return Target(json.loads(told)["port"], process.pid)

    yield serve
    for process in processes:
        process.kill()
        process.communicate()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def target(start) -> Target:
    return start()


@pytest.fixture(scope="module")
def ring(tmp_path_factory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def keyed(start, ring) -> Target:
    ring.create("somebody")
    return start("--keys", str(ring.path), AIP_HEALTH_ROUTE="/aip/health", AIP_PREDICT_ROUTE="/aip/predict")
