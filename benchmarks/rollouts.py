"""What rollouts cost, and how soon a bad one is over: measured here and now; ratios in one run, since machines are noisy.

``python benchmarks/rollouts.py`` takes about two minutes; ``python benchmarks/rollouts.py router back look`` runs the parts that are named.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Self

import attrs
import numpy as np
import psutil

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.engine.journal import Journal
from modeldeploy.errors import RolloutAborted
from modeldeploy.handles.session import Session
from modeldeploy.serving.group import Group, Policy
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.router import Router, Table
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import Traffic

ROUNDS = 5
ROUTED = 5_000
CONNECTIONS = 16
SECONDS = 1.0
STABLE_RATE = 0.005
PATH = "/v2/models/bench/infer"


def main() -> None:
    parts = {"router": router, "back": back, "look": look}
    os.environ["MODELDEPLOY_PROGRESS"] = "off"
    for name in sys.argv[1:] or list(parts):
        say(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="md-bench-") as home:
            parts[name](Path(home))


class Faulty:
    """Fails for a share of its inputs; a number for each request and revision decides."""

    def __init__(self, column: int, rate: float) -> None:
        self.column = column
        self.rate = rate

    def predict(self, x):
        draws = np.asarray(x, dtype=float)[:, self.column]
        if ((draws >= 0) & (draws < self.rate)).any():
            message = "a fault of the model's own"
            raise RuntimeError(message)
        return draws


class Host:
    """A backend of its own with its journal, all gone afterwards."""

    def __init__(self, home: Path, backend: LocalBackend | None = None) -> None:
        self.backend = backend or LocalBackend(home)
        self.session = Session(self.backend, Journal(home / "journal.sqlite"), home=home)
        self._home, self._versions = home, 0

    def model(self, faulty: Faulty) -> Model:
        self._versions += 1
        example = np.array([[-1.0, -2.0], [-3.0, -4.0]])
        return Model(faulty, name="bench", version=f"1.{self._versions}.0", example=example, home=self._home)

    def deploy(self, faulty: Faulty, *, workers: int = 1) -> Endpoint:
        return Endpoint.deploy(self.model(faulty), name="bench", backend=self.session, workers=workers)

    def shift(self, **table) -> None:
        ticket = self.backend.set_traffic("bench", Traffic(**table))
        while not ticket.phase.ended:
            ticket = self.backend.advance(ticket)

    def close(self) -> None:
        Endpoint.get("bench", backend=self.session).delete()
        self.backend.close()
        self.backend.shutdown()


# ---------------------------------------------------------------- what the router's paths cost


def paths(old: str, new: str) -> dict[str, dict]:
    half = {old: 50, new: 50}
    return {
        "plain": {"weights": {old: 100}},
        "split": {"weights": half},
        "keyed by a header": {"weights": half, "key": "header:x-user"},
        "keyed by a field": {"weights": half, "key": "field:user"},
        "shadow 100 %": {"weights": {old: 100}, "shadow": {new: 100}},
    }


def router(home: Path) -> None:
    """The router alone, in this process, with groups that answer at once; then requests over HTTP to real workers."""
    alone: dict[str, list[float]] = {}
    over: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for name, table in paths("old", "new").items():
            alone.setdefault(name, []).append(asyncio.run(handled(table)))
    host = Host(home)
    # As many workers as keep the router busy, so that a second revision's are no help.
    endpoint = host.deploy(Faulty(0, 0.0), workers=2)
    old = endpoint.stable.id
    new = endpoint.rollout(host.model(Faulty(1, 0.0))).revision.id
    front = psutil.Process(host.backend.processes()["front"])
    for _ in range(ROUNDS):
        for name, table in random.sample(list(paths(old, new).items()), k=5):
            host.shift(**table)
            before = sum(front.cpu_times()[:2])
            speed = rate(endpoint.url)
            cpu = (sum(front.cpu_times()[:2]) - before) / (speed * SECONDS)
            over.setdefault(name, []).append((speed, cpu))
    host.close()
    say(
        "  CPU a request: the router's own (with groups that answer at once); the whole front, over HTTP with real workers"
    )
    first: tuple[float, ...] = ()
    for name, took in alone.items():
        speed, cpu = (statistics.median(column) for column in zip(*over[name], strict=True))
        row = statistics.median(took) * 1e6, cpu * 1e6, speed
        first = first or row
        router_x, front_x, speed_x = (value / base for value, base in zip(row, first, strict=True))
        say(f"  {name:<18} {row[0]:6.1f} us ({router_x:4.2f} x plain) {row[1]:8.1f} us ({front_x:4.2f} x plain)"
            f" {speed:9,.0f} requests/s ({speed_x:4.2f} x plain)")  # fmt: skip


class Instant(Group):
    """Answers at once; what is left is the router and the meter."""

    async def _answer(self, _request: Request, _within: float) -> Response:
        return Response(200, b'{"predictions":[0.5]}', {"content-type": "application/json"})


async def handled(table: dict) -> float:
    """Seconds of CPU for each request."""
    asked = Router("bench")
    asked.groups = {name: Instant(name, Policy(), asked.meter(name)) for name in ("old", "new")}
    asked.install(Table.of(table["weights"], "old", table.get("shadow"), table.get("key", "")))
    requests = [Request("POST", PATH, "", {"x-user": str(each)}, infer(str(each))) for each in range(ROUTED)]
    began = time.process_time()
    for request in requests:
        await asked.handle(request)
        await asyncio.sleep(0)  # copies go in a later turn of the loop
    return (time.process_time() - began) / ROUTED


def infer(key: str) -> bytes:
    """One row, with a key in the parameters."""
    tensor = b'{"name":"input","shape":[1,2],"datatype":"FP64","data":[0.5,0.5]}'
    return b'{"parameters":{"user":"%s"},"inputs":[%s]}' % (key.encode(), tensor)


def rate(url: str) -> float:
    """Ask from another process, closed loop; requests a second."""
    done = subprocess.run([sys.executable, __file__, "--load", url], capture_output=True, check=True)
    return float(done.stdout)


def generate(url: str) -> None:
    """Every request has a key of its own, whether or not the table wants one, so that all paths are asked the same."""
    import uvloop

    address = urllib.parse.urlsplit(url)
    head = f"POST {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n".encode()
    counts = [0] * CONNECTIONS

    async def one(caller: int, end: float) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while time.perf_counter() < end:
            key = f"{caller}-{counts[caller]}"
            body = infer(key)
            writer.write(b"%sx-user: %s\r\nContent-Length: %d\r\n\r\n%s" % (head, key.encode(), len(body), body))
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answer.decode())
            lines = answer.lower().split(b"\r\n")
            await reader.readexactly(next(int(each[15:]) for each in lines if each.startswith(b"content-length:")))
            counts[caller] += 1
        writer.close()

    async def run() -> None:
        end = time.perf_counter() + SECONDS
        await asyncio.gather(*(one(caller, end) for caller in range(CONNECTIONS)))

    uvloop.run(run())
    sys.stdout.write(f"{sum(counts) / SECONDS}\n")


# ---------------------------------------------------------------- from the first bad answer to traffic back


@attrs.define
class Callers:
    """Clients that note when the canary failed them, or would have, and when it was last asked."""

    url: str
    stop: threading.Event = attrs.field(factory=threading.Event)
    notes: list[tuple[float, str, str]] = attrs.field(factory=list)
    """When it was answered, by whom, and who had failed before."""
    threads: list[threading.Thread] = attrs.field(factory=list)

    def __enter__(self) -> Self:
        self.threads = [threading.Thread(target=self.ask, args=(seed,)) for seed in range(6)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def ask(self, seed: int) -> None:
        connection, rng = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc), random.Random(seed)
        while not self.stop.wait(0.005):
            body = json.dumps({"instances": [[rng.random(), rng.random()]]}).encode()
            connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            names = [answer.headers.get(f"modeldeploy-{name}", "") for name in ("revision", "fallback-from")]
            self.notes.append((time.time(), *names))
        connection.close()


def back(home: Path) -> None:
    """Canaries at 5 %, under load of some hundred requests a second; times in seconds, medians."""
    host = Host(home)
    endpoint = host.deploy(Faulty(0, STABLE_RATE))
    say("  canary                 look every   first bad answer to back   canary requests   failures   requests/s")
    for bad, times in ((1.0, 7), (STABLE_RATE + 0.05, 5)):
        for interval in (0.1, 1.0):
            runs = [_taken_back(host, endpoint, bad, interval) for _ in range(times)]
            took, asked, failed, speed = (statistics.median(column) for column in zip(*runs, strict=True))
            every = sorted(round(run[0], 1) for run in runs)
            say(f"  fails {100 * bad:5.1f} % of them   {interval:7.1f} s {took:15.2f} {every[0]:>5}-{every[-1]:<5}"
                f" {asked:16.0f} {failed:10.0f} {speed:12,.0f}")  # fmt: skip
    host.close()


def _taken_back(host: Host, endpoint: Endpoint, bad: float, interval: float) -> tuple[float, int, int, float]:
    policy = RolloutPolicy.canary((5, 25, 50), soak=1.0, gates=["error_rate <= 1%"], interval=interval)
    model = host.model(Faulty(1, bad))
    with Callers(endpoint.url) as callers:
        time.sleep(0.5)
        rollout = endpoint.rollout(model, policy, wait=False)
        try:
            rollout.wait(120)
        except RolloutAborted:
            pass
        else:
            raise SystemExit(rollout.outcome)
    name = rollout.revision.id
    asked = [note for note in callers.notes if name in note[1:]]
    failed = [at for at, _revision, before in asked if before]
    speed = len(callers.notes) / (callers.notes[-1][0] - callers.notes[0][0])
    return max(at for at, *_ in asked) - failed[0], len(asked), len(failed), speed


# ---------------------------------------------------------------- what a look costs


class Unslotted(LocalBackend):
    """Lets the engine look as often as it likes, where it would wait for whole seconds: what is read says a request for each percent."""

    capabilities = attrs.evolve(LocalBackend.capabilities, meter_resolution=0.0)

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:
        super().window(endpoint, revision, since, until, share=share)
        count = share or 0
        return Window(revision, since, until, count, 0, {"60": count}, count)


def look(home: Path) -> None:
    """The driver of a rollout that does nothing but look, as fast as it can; two gates, wall time."""
    backend = Unslotted(home)
    host = Host(home, backend)
    endpoint = host.deploy(Faulty(0, STABLE_RATE))
    spent: dict[str, list[float]] = {"read": [], "write": []}
    journal = host.session.journal
    _timed(backend, "window", spent["read"])
    _timed(journal, "save", spent["write"])
    gates, seconds = ["error_rate <= 10%", "p95_latency <= 5s"], 6.0
    policy = RolloutPolicy.canary((25,), soak=seconds, gates=gates, interval=1e-6)
    rollout = endpoint.rollout(host.model(Faulty(1, STABLE_RATE)), policy, wait=False)
    wait_for(lambda: endpoint.traffic.get(rollout.revision.id) == 25)
    for kept in spent.values():
        kept.clear()
    began = time.perf_counter()
    rollout.wait(60)
    took = time.perf_counter() - began
    looks = len(spent["read"]) / 2
    told = len(rollout.verdicts)
    host.close()
    read, write = (1000 * sum(kept) / looks for kept in spent.values())
    say(f"  {looks:.0f} looks in {took:.1f} s, {told} of them in the history of the rollout; {rollout.status}")
    say(f"  a look                        {1000 * took / looks:7.2f} ms")
    say(f"    reading two windows         {read:7.2f} ms")
    say(
        f"    writing the journal         {write:7.2f} ms, {1000 * statistics.median(spent['write']):.2f} ms the median write"
    )
    say(f"    counting, judging, waiting  {1000 * took / looks - read - write:7.2f} ms")


def _timed(owner: object, name: str, kept: list[float]) -> None:
    plain = getattr(owner, name)

    def timed(*args, **kwargs):
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            kept.append(time.perf_counter() - began)

    setattr(owner, name, timed)


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        generate(sys.argv[2])
    else:
        main()
