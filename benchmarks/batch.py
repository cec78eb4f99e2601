"""Part ``batch``: parquet to parquet with every tool, from the command to its end; what each wrote is compared with the model's own answers."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import models
import tree
from models import Made, Sums
from peers import BARE_LOOP, OURS_BATCH, PROGRAMS, TOOLS, Program
from results import Results, Score
from serving import LOG_TAIL, FailedError, Round, Settings, prepared, rounds, scratch, watched

PATIENCE_S = 1800
ALONE = {"read": "reading", "convert": "reading and converting", "predict": "predicting", "write": "writing"}
# A table of a fifth tells whether memory grows with the rows.
SMALLER = 5


def measure(tools: list[Program], settings: Settings, rows: int, results: Results) -> None:
    places = [models.table(count, settings.folder / "tables") for count in (rows, rows // SMALLER)]
    for name in settings.models:
        made = models.make(models.SCORED, name, settings.folder / "scored")
        whole, fifth = (Task(made, place, models.expected(made, place)) for place in places)
        for round_ in rounds(settings, results):
            _alone(whole, round_)
            for tool in random.Random(f"{round_.number} {name}").sample(tools, len(tools)):
                _measure_one(tool, whole, round_)
            _measure_one(named(OURS_BATCH), fifth, round_)


@attrs.frozen
class Task:
    """What every tool is given, and what it must come to."""

    made: Made
    source: Path
    wanted: Sums


def named(name: str) -> Program:
    return next(tool for tool in TOOLS if tool.name == name)


def _measure_one(tool: Program, task: Task, round_: Round) -> None:
    rows, model = task.wanted.rows, task.made.name
    try:
        score = _score(tool, task, round_)
    except FailedError as error:
        round_.say(f"{model:8} {error}")
        score = Score(tool.name, model, rows, round_.number, 0, 0, 0, 0, failed=str(error))
    else:
        took = f"{score.seconds:6.2f} s, {score.rate / 1e6:5.2f} M rows/s, CPU {score.cpu_s:6.2f} s"
        round_.say(f"{model:8} {tool.name:42} {rows:>12,} rows {took}, {score.peak_bytes / 1e6:,.0f} MB")
    round_.results.scores.append(score)


def _score(tool: Program, task: Task, round_: Round) -> Score:
    with _target(tool, task.made, round_.settings.folder) as (home, target):
        line = tool.line(model=task.made.path, source=task.source, target=target, folder=home)
        environ = tool.environ(MODELDEPLOY_HOME=str(home), TMPDIR=str(home))
        peak = tree.Peak()
        before = tree.Reading.take()
        with peak.watch():
            failed = _run(line, environ, home)
            seconds = time.perf_counter() - before.at
        left = tree.end_all()
        after = tree.Reading.take()
        found = None if failed else models.found(target)
    if found != task.wanted or left:
        message = f"{tool.name}: {failed or f'wrote {found}, expected {task.wanted}; left {len(left)} processes'}"
        raise FailedError(message)
    cpu, foreign = after.tree - before.tree, after.foreign_since(before)
    made, rows = task.made.name, task.wanted.rows
    return Score(tool.name, made, rows, round_.number, seconds, cpu, peak.bytes, foreign)


@contextlib.contextmanager
def _target(tool: Program, made: Made, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give a home and a place for the output, on the disk where the tables lie."""
    X = models.rows(5)[:, : models.SCORED_COLUMNS]
    place = prepared(tool, made, X, folder / "scored")
    out = folder / "out"
    out.mkdir(exist_ok=True)
    with scratch() as home:
        if tool.kind == "ours":
            shutil.copytree(place, home, dirs_exist_ok=True)
        try:
            yield home, out / "scored.parquet"
        finally:
            shutil.rmtree(out)


def _run(line: list[str], environ: dict[str, str], home: Path) -> str | None:
    """Run it to its end; what it said when it failed."""
    log = home / "log"
    with log.open("wb") as said:
        done = subprocess.run(line, env=environ, stdout=said, stderr=said, cwd=home, check=False, timeout=PATIENCE_S)
    return log.read_text(errors="replace")[-LOG_TAIL:] if done.returncode else None


def _alone(task: Task, round_: Round) -> None:
    """Time reading, converting, predicting and writing apart, without the start of Python and the imports."""
    loop = named(BARE_LOOP)
    with _target(loop, task.made, round_.settings.folder) as (home, target):
        for what, title in ALONE.items():
            files = [str(each) for each in (task.made.path, task.source, target)]
            line = [sys.executable, str(PROGRAMS / "bare_batch.py"), what, *files]
            environ = loop.environ(TMPDIR=str(home))
            said, foreign = watched(lambda line=line, environ=environ: subprocess.check_output(line, env=environ))
            round_.note(f"{title} alone, {task.made.name}", float(said), "s", foreign)
