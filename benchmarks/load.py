"""The load: another process that asks over kept-alive connections, each as soon as it has its answer (a closed loop).

``wrk`` (C) where it is installed, else a generator of our own in Python, which takes more of the machine from the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 30


@attrs.frozen
class Ask:
    """One request, asked again and again."""

    url: str
    body: bytes
    headers: Mapping[str, str]


@attrs.frozen
class Load:
    """What came of it; ``cpu_s`` is what the generator itself took."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_s: float


def generator(wanted: str = "") -> str:
    """Name what makes the load."""
    return wanted or ("wrk" if shutil.which("wrk") else "python")


def measure(ask: Ask, connections: int, seconds: float, folder: Path, *, by: str = "") -> Load:
    """Ask for so many seconds, and wait for the end."""
    with running(ask, connections, seconds, folder, by=by) as process:
        return ended(process)


@contextlib.contextmanager
def running(
    ask: Ask, connections: int, seconds: float, folder: Path, *, by: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Ask meanwhile; ``ended`` gives what came of it."""
    body = folder / "body"
    body.write_bytes(ask.body)
    make = _wrk if generator(by) == "wrk" else _python
    with subprocess.Popen(make(ask, connections, seconds, body), stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> Load:
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"the load generator ended with {process.returncode}: {said[-500:]}"
        raise RuntimeError(message)
    return Load(**json.loads(said.splitlines()[-1]), cpu_s=used.ru_utime + used.ru_stime)


def _wrk(ask: Ask, connections: int, seconds: float, body: Path) -> list[str]:
    headers = [text for header in ask.headers.items() for text in header]
    sizes = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT_S}s"]
    return ["wrk", *sizes, "-s", str(HERE / "wrk.lua"), ask.url, "--", str(body), *headers]


def _python(ask: Ask, connections: int, seconds: float, body: Path) -> list[str]:
    asked = [ask.url, str(connections), str(seconds), str(body), json.dumps(dict(ask.headers))]
    return [sys.executable, str(HERE / "load.py"), *asked]


# ---------------------------------------------------------------- our own generator, in a process of its own


def main(url: str, connections: str, seconds: str, body: str, headers: str) -> None:
    ask = Ask(url, Path(body).read_bytes(), json.loads(headers))
    began = time.perf_counter()
    took, errors = asyncio.run(_ask_all(ask, int(connections), float(seconds)))
    lasted = time.perf_counter() - began
    cuts = statistics.quantiles(took, n=100) if len(took) > 1 else [0.0] * 99
    found = {"requests": len(took), "seconds": lasted, "p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98]}
    sys.stdout.write(json.dumps({**found, "errors": errors}) + "\n")


async def _ask_all(ask: Ask, connections: int, seconds: float) -> tuple[list[float], int]:
    host, _, rest = ask.url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    head = {"Host": host, "Content-Length": str(len(ask.body)), **ask.headers}
    lines = [f"POST /{path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    request = "\r\n".join(lines).encode() + ask.body
    end = time.perf_counter() + seconds
    rows = await asyncio.gather(*(_ask_one(host, int(port), request, end) for _ in range(connections)))
    return [took for each, _errors in rows for took in each], sum(errors for _took, errors in rows)


async def _ask_one(host: str, port: int, request: bytes, end: float) -> tuple[list[float], int]:
    took: list[float] = []
    errors = 0
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            while (began := time.perf_counter()) < end:
                writer.write(request)
                if not await _answered(reader):
                    errors += 1
                took.append(time.perf_counter() - began)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            errors += 1
    return took, errors


async def _answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer; whether it is a good one."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = head.partition(b"\r\ncontent-length:")
    await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    return head.startswith(b"http/1.1 200")


if __name__ == "__main__":
    main(*sys.argv[1:])
