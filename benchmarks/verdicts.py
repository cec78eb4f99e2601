"""What is promised, each with what this run measured: yes, no, or not measured."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence

import attrs
from peers import BARE_HTTP, BARE_LOOP, BATCHING, FASTAPI_2W, OURS_BATCH, OURS_NAME, SERVERS, TOOLS
from results import QUIET_CORES, Cell, Results, Score

FRAMEWORKS = [server.name for server in SERVERS if server.kind == "peer"]
LEVELS = (1, 8, 64)
MOST_GROWTH = 1.1


@attrs.frozen
class Verdict:
    claim: str
    measured: str = ""
    kept: bool | None = None


class Missing(Exception):  # noqa: N818 - no error: that part was not run
    """A figure that a verdict needs was not measured."""


@attrs.frozen
class At:
    """Which cells are meant."""

    model: str
    rows: int
    level: int
    form: str = "json"


@attrs.frozen
class Seen:
    """Medians of what was measured; ``Missing`` where it was not."""

    results: Results

    def cell(self, of: Callable[[Cell], float], server: str, at: At) -> float:
        def meant(c: Cell) -> bool:
            return c.server == server and At(c.model, c.rows, c.connections, c.form) == at

        return _median([cell for cell in self.results.cells if meant(cell)], of)

    def best(
        self, pick: Callable[..., tuple[float, str]], of: Callable[[Cell], float], among: Sequence[str], at: At
    ) -> tuple[float, str]:
        """Pick one of several servers: its figure and its name."""
        known = []
        for server in among:
            with contextlib.suppress(Missing):
                known.append((self.cell(of, server, at), server))
        if not known:
            raise Missing
        return pick(known)

    def start(self, model: str) -> float:
        found = [s for s in self.results.starts if (s.server, s.model) == (OURS_NAME, model) and not s.failed]
        return _median(found, lambda start: start.seconds)

    def score(self, of: Callable[[Score], float], tool: str, model: str, rows: int) -> float:
        found = [s for s in self.results.scores if (s.tool, s.model, s.rows) == (tool, model, rows) and not s.failed]
        return _median(found, of)

    def figure(self, name: str) -> float:
        return _median([f for f in self.results.figures if f.name == name], lambda figure: figure.value)


def _median(found, of):
    if not found:
        raise Missing
    quiet = [each for each in found if each.foreign < QUIET_CORES]
    return statistics.median(map(of, quiet or found))


def rate(cell: Cell) -> float:
    return cell.rate


def cpu(cell: Cell) -> float:
    return cell.cpu_us


def p50(cell: Cell) -> float:
    return cell.p50_ms


def p99(cell: Cell) -> float:
    return cell.p99_ms


# ---------------------------------------------------------------- each claim: its text, and how it is judged

Judge = Callable[[Seen], tuple[str, bool]]


def at_most(limit: float, unit: str, measured: Callable[[Seen], float]) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        value = measured(seen)
        return f"{value:,.3g} {unit}".strip(), value <= limit

    return judge


def times_fastapi(model: str, level: int, least: float) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        ours, theirs = (seen.cell(rate, server, At(model, 1, level)) for server in (OURS_NAME, FASTAPI_2W))
        return f"{ours / theirs:.1f}x ({ours:,.0f} / {theirs:,.0f} req/s)", ours >= least * theirs

    return judge


def times_best(at: At, least: float, among: Sequence[str]) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        ours = seen.cell(rate, OURS_NAME, at)
        theirs, who = seen.best(max, rate, among, at)
        return f"{ours / theirs:.1f}x ({ours:,.0f} / {theirs:,.0f} req/s, {who})", ours >= least * theirs

    return judge


def share_of_best_cpu(at: At, most: float) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        ours = seen.cell(cpu, OURS_NAME, at)
        theirs, who = seen.best(min, cpu, FRAMEWORKS, at)
        return f"{ours / theirs:.2f} ({ours:,.0f} / {theirs:,.0f} us, {who})", ours <= most * theirs

    return judge


def lowest_p99(model: str) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        told, kept = [], True
        for level in LEVELS:
            ours = seen.cell(p99, OURS_NAME, At(model, 1, level))
            theirs, who = seen.best(min, p99, FRAMEWORKS, At(model, 1, level))
            told.append(f"{level}: {ours:.2f} / {theirs:.2f} ms ({who})")
            kept = kept and ours < theirs
        return ", ".join(told), kept

    return judge


def near_bare(model: str, most: float) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        ours = seen.cell(p50, OURS_NAME, At(model, 1, 1))
        predict = seen.figure(f"bare predict, {model}, 1 rows")
        bare = seen.cell(p50, BARE_HTTP, At("lr-onnx", 1, 1))
        return f"{ours / (predict + bare):.2f}x ({ours:.2f} / {predict:.2f} + {bare:.2f} ms)", ours <= most * (
            predict + bare
        )

    return judge


def binary_saves(model: str, least: float) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        text, binary = (seen.cell(cpu, OURS_NAME, At(model, 100, 64, form)) for form in ("json", "binary"))
        return f"{text / binary:.1f}x ({text:,.0f} / {binary:,.0f} us)", text >= least * binary

    return judge


def near_loop(model: str, least: float) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        rows, tools = _most_rows(seen), (OURS_BATCH, BARE_LOOP)
        ours, limit = (seen.score(lambda s: s.rate, tool, model, rows) for tool in tools)
        told = f"{100 * ours / limit:.0f} % ({ours / 1e6:.2f} / {limit / 1e6:.2f} M rows/s"
        used, least_used = (seen.score(lambda s: s.cpu_s, tool, model, rows) for tool in tools)
        return f"{told}; CPU {used:.1f} / {least_used:.1f} s)", ours >= least * limit

    return judge


def ahead_of_all(model: str) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        rows, known = _most_rows(seen), []
        for tool in TOOLS:
            if tool.kind == "peer":
                with contextlib.suppress(Missing):
                    known.append((seen.score(lambda s: s.rate, tool.name, model, rows), tool.name))
        if not known:
            raise Missing
        ours, (theirs, who) = seen.score(lambda s: s.rate, OURS_BATCH, model, rows), max(known)
        return f"{ours / theirs:.2f}x ({ours / 1e6:.2f} / {theirs / 1e6:.2f} M rows/s, {who})", ours > theirs

    return judge


def flat_memory(model: str) -> Judge:
    def judge(seen: Seen) -> tuple[str, bool]:
        sizes = sorted({s.rows for s in seen.results.scores if s.tool == OURS_BATCH})
        if len(sizes) < 2:
            raise Missing
        small, large = (
            seen.score(lambda s: s.peak_bytes / 1e6, OURS_BATCH, model, rows) for rows in (sizes[0], sizes[-1])
        )
        return f"{large:,.0f} MB for {sizes[-1]:,} rows, {small:,.0f} MB for {sizes[0]:,}", large <= MOST_GROWTH * small

    return judge


def _most_rows(seen: Seen) -> int:
    if not seen.results.scores:
        raise Missing
    return max(s.rows for s in seen.results.scores)


def claims() -> Iterator[tuple[str, Judge]]:
    one = "ONNX, one row"
    yield (
        f"{one}, 64 connections: at most 60 us of server CPU",
        at_most(60, "us", lambda s: s.cell(cpu, OURS_NAME, At("lr-onnx", 1, 64))),
    )
    yield f"{one}, 64 connections: at least 8x FastAPI with two workers", times_fastapi("lr-onnx", 64, 8)
    yield f"{one}, 8 connections: at least 4x FastAPI with two workers", times_fastapi("lr-onnx", 8, 4)
    yield (
        f"{one}, one connection: p50 at most 0.35 ms",
        at_most(0.35, "ms", lambda s: s.cell(p50, OURS_NAME, At("lr-onnx", 1, 1))),
    )
    yield (
        f"{one}, one connection: at most a third of the CPU of the best framework",
        share_of_best_cpu(At("lr-onnx", 1, 1), 1 / 3),
    )
    yield f"{one}: p99 below every framework's at every count", lowest_p99("lr-onnx")
    for model, name in (("lr", "LogisticRegression"), ("rf", "RandomForest(100)")):
        yield f"{name}, one row, 64 connections: at least 10x FastAPI with two workers", times_fastapi(model, 64, 10)
        yield (
            f"{name}, one row, 64 connections: at least 3x the best batching framework",
            times_best(At(model, 1, 64), 3, BATCHING),
        )
        yield f"{name}, one row, one connection: within 1.3x of bare predict plus bare HTTP", near_bare(model, 1.3)
    for model, name in (("lr", "LogisticRegression"), ("lr-onnx", "ONNX")):
        hundred = f"{name}, 100 rows, JSON, 64 connections"
        yield f"{hundred}: at most half the CPU of the best framework", share_of_best_cpu(At(model, 100, 64), 1 / 2)
        yield (
            f"{hundred}: at least twice the best framework's throughput",
            times_best(At(model, 100, 64), 2, FRAMEWORKS),
        )
        yield f"{name}, 100 rows: binary tensors take at least 3x less CPU than JSON", binary_saves(model, 3)
    yield "ONNX: start to first answer at most 0.4 s", at_most(0.4, "s", lambda s: s.start("lr-onnx"))
    yield "scikit-learn: start to first answer at most 2 s", at_most(2, "s", lambda s: s.start("lr"))
    for model, name in (("lr", "LogisticRegression"), ("lr-onnx", "ONNX")):
        yield from _changes(model, name)
    for model, name in (
        ("lr", "LogisticRegression"),
        ("rf", "RandomForest(30)"),
        ("lr-onnx", "ONNX LogisticRegression"),
        ("rf-onnx", "ONNX RandomForest(30)"),
    ):
        yield (
            f"Batch, {name}: at least 90 % of what reading, predicting with all cores and writing allow",
            near_loop(model, 0.9),
        )
        yield f"Batch, {name}: ahead of every peer", ahead_of_all(model)
        yield (
            f"Batch, {name}: peak memory under 500 MB",
            at_most(500, "MB", lambda s, m=model: s.score(lambda x: x.peak_bytes / 1e6, OURS_BATCH, m, _most_rows(s))),
        )
        yield f"Batch, {name}: peak memory independent of the rows (within 10 %)", flat_memory(model)


def _changes(model: str, name: str) -> Iterator[tuple[str, Judge]]:
    def seen(what: str) -> Callable[[Seen], float]:
        return lambda s: s.figure(f"{what}, {model}")

    ready = "a further revision ready, less its model's load time"
    yield f"{name}: a further revision ready within 0.2 s of its model's load time", at_most(200, "ms", seen(ready))
    yield (
        f"{name}: traffic switch at full load under 10 ms",
        at_most(10, "ms", seen("traffic switch under load, median")),
    )
    yield f"{name}: rollback at full load under 50 ms", at_most(50, "ms", seen("rollback under load, median"))
    for what in ("traffic switch", "rollback"):
        yield (
            f"{name}: no request failed during a {what}",
            at_most(0, "failed", seen(f"{what} under load, failed requests")),
        )


def of(results: Results) -> list[Verdict]:
    seen, told = Seen(results), []
    for claim, judge in claims():
        try:
            told.append(Verdict(claim, *judge(seen)))
        except Missing:
            told.append(Verdict(claim))
    return told
