"""Part ``serve``: every server with every model, one after another, in rounds; each must answer rightly before it is loaded."""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import attrs
import load
import models
import numpy as np
import tree
import waking
from load import Ask
from models import Made
from peers import Form, Program, Server
from results import Cell, Figure, Results, Start

HUNDRED = 100
WARM_CONNECTIONS = 8
PATIENCE_S = 120.0
POLL_S = 0.005
T = TypeVar("T")
LOG_TAIL = 600


@attrs.frozen
class Settings:
    """What ``make bench`` was asked for."""

    folder: Path
    rounds: int
    seconds: float
    levels: tuple[int, ...]
    models: tuple[str, ...]
    generator: str
    say: Callable[[str], None]
    save: Callable[[], None]
    """Write what is known so far; a long run that is broken off keeps its whole rounds."""


@attrs.frozen
class Round:
    """One round of a run, and where its figures go."""

    number: int
    settings: Settings
    results: Results

    def say(self, text: str) -> None:
        self.settings.say(f"  round {self.number} {text}")

    def note(self, what: str, value: float, unit: str, foreign: float) -> None:
        self.results.figures.append(Figure(what, value, unit, self.number, foreign))


def watched(act: Callable[[], T]) -> tuple[T, float]:
    """Give what it gives, and the cores that other programs took meanwhile."""
    before = tree.Reading.take()
    found = act()
    return found, tree.Reading.take().foreign_since(before)


def rounds(settings: Settings, results: Results) -> Iterator[Round]:
    for number in range(1, settings.rounds + 1):
        yield Round(number, settings, results)
        settings.save()


class FailedError(Exception):
    """A server or tool that did not do its work, with what it said."""


# ---------------------------------------------------------------- one server, running


@attrs.frozen
class Running:
    server: Server
    made: Made
    port: int
    began: float
    log: Path

    def ask(self, form: Form, rows: int) -> Ask:
        body, headers = form.ask(self._rows(form, rows))
        return Ask(f"http://127.0.0.1:{self.port}{form.path}", body, headers)

    def check(self, form: Form, rows: int) -> None:
        """Raise unless it gives the model's own predictions."""
        given = self._rows(form, rows)
        body, headers = form.ask(given)
        status, answer = _post(self.port, form.path, body, headers)
        if status != http.client.OK:
            message = f"{self.server.name} answers {status}: {answer[:200]!r}"
            raise FailedError(message)
        wanted, found = self.made.predict(given), form.read(answer)
        if self.server.kind != "limit" and not np.array_equal(np.ravel(found), np.ravel(wanted)):
            message = f"{self.server.name} predicts {found[:10]}, the model {wanted[:10]}"
            raise FailedError(message)

    def _rows(self, form: Form, rows: int) -> np.ndarray:
        found = models.rows(rows)
        return found.astype(self.made.dtype) if form.name == "binary" else found

    def wait(self, process: subprocess.Popen[bytes]) -> float:
        """Wait for the first right answer; give the seconds since the command."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._first()
                return time.perf_counter() - self.began
            gone = process.poll()
            if gone or time.perf_counter() - self.began > PATIENCE_S:
                message = f"{self.server.name} does not answer (exit {gone}): {self._said()}"
                raise FailedError(message)
            time.sleep(POLL_S)

    def _first(self) -> None:
        try:
            self.check(self.server.form, 1)
        except FailedError as error:
            # Some listen before they have their model, and say so.
            raise http.client.HTTPException from error

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


def _post(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory with a short path, for the Unix sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="mdb", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepared(program: Program, made: Made, example: np.ndarray, folder: Path) -> Path:
    """Make what a program needs beside the model's file, once; give its place."""
    place = folder / "prepared" / f"{program.environment or 'modeldeploy'}-{made.name}"
    if program.prepare and not place.exists():
        rows = folder / f"{made.name}-example.npy"
        np.save(rows, example.astype(made.dtype))
        environ = program.environ(MODELDEPLOY_HOME=str(place))
        line = program.prepare_line(model=made.path, example=rows, prepared=place)
        done = subprocess.run(line, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"{program.name} cannot be prepared: {done.stderr[-LOG_TAIL:]}"
            raise FailedError(message)
    return place


@contextlib.contextmanager
def started(server: Server, made: Made, folder: Path) -> Iterator[tuple[Running, float]]:
    """Start a server in a home of its own; give it and the seconds to its first right answer, and end all that it started."""
    place = prepared(server, made, models.rows(5), folder)
    with scratch() as home:
        if server.kind == "ours":
            shutil.copytree(place, home, dirs_exist_ok=True)
        port, log = free_port(), home / "log"
        line = server.line(port=port, model=made.path, folder=home, prepared=place)
        more = {"MODELDEPLOY_HOME": str(home), "BENTOML_HOME": str(home), "TMPDIR": str(home)}
        environ = server.environ(BENCH_MODEL=str(made.path), **more)
        try:
            with log.open("wb") as said:
                running = Running(server, made, port, time.perf_counter(), log)
                process = subprocess.Popen(line, env=environ, stdout=said, stderr=said, cwd=home)
                yield running, running.wait(process)
        finally:
            tree.end_all()


# ---------------------------------------------------------------- rounds


def measure(servers: list[Server], settings: Settings, results: Results) -> None:
    made = {name: models.make(models.SERVED, name, settings.folder / "served") for name in settings.models}
    for round_ in rounds(settings, results):
        _wake(round_)
        for model in made.values():
            _bare_predict(model, round_)
            order = random.Random(f"{round_.number} {model.name}").sample(servers, len(servers))
            for server in order:
                if server.kind != "limit" or model is next(iter(made.values())):
                    _measure_one(server, model, round_)


def _measure_one(server: Server, made: Made, round_: Round) -> None:
    results = round_.results
    before = tree.Reading.take()
    try:
        with started(server, made, round_.settings.folder) as (running, seconds):
            after = tree.Reading.take()
            cells = list(_cells(running, round_))
            peak = tree.pss()
    except FailedError as error:
        results.starts.append(Start(server.name, made.name, round_.number, 0, 0, 0, 0, failed=str(error)))
        round_.say(f"{made.name:8} {error}")
        return
    results.cells += cells
    cpu, foreign = after.tree - before.tree, after.foreign_since(before)
    results.starts.append(Start(server.name, made.name, round_.number, seconds, cpu, peak, foreign))
    one = [cell for cell in cells if cell.rows == 1]
    told = ", ".join(f"{cell.connections}: {cell.rate:,.0f}/s {cell.cpu_us:,.0f} us" for cell in one)
    round_.say(f"{made.name:8} {server.name:24} start {seconds:5.2f} s; {told}")


def _cells(running: Running, round_: Round) -> Iterator[Cell]:
    """Load it with one row, and with a hundred unless it is the forest, where predicting is all."""
    forms = [(running.server.form, 1)]
    if not running.made.name.startswith("rf"):
        forms += [(form, HUNDRED) for form in (running.server.form, *running.server.more)]
    for form, rows in forms:
        running.check(form, rows)
        _load(running.ask(form, rows), WARM_CONNECTIONS, min(1.0, round_.settings.seconds), running, round_)
        for connections in round_.settings.levels:
            yield _cell(running, form, rows, connections, round_)


def _load(ask: Ask, connections: int, seconds: float, running: Running, round_: Round) -> load.Load:
    return load.measure(ask, connections, seconds, running.log.parent, by=round_.settings.generator)


def _cell(running: Running, form: Form, rows: int, connections: int, round_: Round) -> Cell:
    ask = running.ask(form, rows)
    before = tree.Reading.take()
    done = _load(ask, connections, round_.settings.seconds, running, round_)
    after = tree.Reading.take()
    return Cell(
        server=running.server.name,
        model=running.made.name,
        form=form.name,
        rows=rows,
        connections=connections,
        round=round_.number,
        requests=done.requests,
        seconds=done.seconds,
        p50_ms=done.p50_ms,
        p99_ms=done.p99_ms,
        cpu_s=after.tree - before.tree - done.cpu_s,
        errors=done.errors,
        foreign=after.foreign_since(before),
    )


def _wake(round_: Round) -> None:
    """Time what it takes to wake another process: a request to ours wakes two, and the one who asks."""
    found, foreign = watched(lambda: list(waking.turns()))
    for turn in found:
        round_.note(f"waking another process and being woken, {turn.where}", 1e6 * turn.seconds, "us", foreign)
        round_.note(f"the same, CPU of both, {turn.where}", 1e6 * turn.cpu_s, "us", foreign)


def _bare_predict(made: Made, round_: Round) -> None:
    """Time the model's own call, in this process: the least that a server can do."""
    for rows in (1, HUNDRED):
        X = models.rows(rows).astype(made.dtype)
        median, foreign = watched(lambda X=X: median_s(lambda: made.predict(X), 0.5))
        round_.note(f"bare predict, {made.name}, {rows} rows", 1000 * median, "ms", foreign)


def median_s(act: Callable[[], object], seconds: float) -> float:
    """Give the median of as many calls as fit."""
    act()
    took = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        act()
        took.append(time.perf_counter() - began)
    return float(np.median(took))
