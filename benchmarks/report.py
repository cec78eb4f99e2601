"""Tables in Markdown of what was measured. ``report.py RESULTS.json`` prints them; ``--into FILE`` puts them between its two marks.

A figure is the median of the rounds in which other programs took less than 0.15 cores; where no round was so quiet, the median of all, with a star.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import models
import verdicts
from peers import SERVERS, TOOLS
from results import QUIET_CORES, Cell, Figure, Results, Score, Start, together

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
T = TypeVar("T", Cell, Figure, Score, Start)


def middle(found: Sequence[T], of: Callable[[T], float]) -> tuple[float, str]:
    """Give the median and a star where no round was quiet."""
    quiet = [each for each in found if each.foreign < QUIET_CORES]
    return statistics.median(map(of, quiet or found)), "" if quiet else "*"


def number(value: float, star: str = "") -> str:
    """Write the figures that count: two of what is below ten, no fraction of what is above a hundred."""
    size = abs(value)
    digits = 0 if size >= 100 or not size else 1 if size >= 1 else 1 - math.floor(math.log10(size))
    return f"{value:,.{digits}f}{star}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "--:") -> str:
    """Write a table: names to the left, figures to the right."""
    lines = [list(heads), ["---", *(align for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------- serving


def serving(results: Results) -> str:
    kinds = dict.fromkeys((cell.model, cell.form, cell.rows) for cell in results.cells if cell.server != "bare")
    order = {name: place for place, name in enumerate(models.NAMES)}
    parts = []
    for model, form, rows in sorted(kinds, key=lambda kind: (order[kind[0]], kind[2], kind[1] != "json")):
        cells = [cell for cell in results.cells if (cell.model, cell.form, cell.rows) == (model, form, rows)]
        parts.append(_served(_title(model, form, rows), model, cells, results))
    return "\n\n".join(parts)


def _title(model: str, form: str, rows: int) -> str:
    count = "one row" if rows == 1 else f"{rows} rows"
    told = "JSON" if form == "json" else "binary tensors (V2)"
    return f"{models.TITLES[model].format(trees=models.SERVED_TREES)}; {count}, {told}"


def _served(title: str, model: str, cells: list[Cell], results: Results) -> str:
    levels = sorted({cell.connections for cell in cells})
    heads = [
        "server",
        *(f"{level} conn.: req/s · p50 / p99 ms · CPU us" for level in levels),
        "MB",
        "start s",
        "errors",
    ]
    rows = []
    for server in [each.name for each in SERVERS]:
        own = [cell for cell in cells if cell.server == server]
        if own:
            rows.append(
                [
                    _bold(server),
                    *(_loaded(own, level) for level in levels),
                    *_started(server, model, results),
                    f"{sum(cell.errors for cell in own):,}",
                ]
            )
    return f"#### {title}\n\n{table(heads, rows)}"


def _bold(name: str) -> str:
    return f"**{name}**" if name.startswith("modeldeploy") else name


def _loaded(cells: list[Cell], level: int) -> str:
    own = [cell for cell in cells if cell.connections == level]
    if not own:
        return ""
    rate, star = middle(own, lambda cell: cell.rate)
    p50, p99, cpu = (middle(own, of)[0] for of in (lambda c: c.p50_ms, lambda c: c.p99_ms, lambda c: c.cpu_us))
    return f"{rate:,.0f}{star} · {number(p50)} / {number(p99)} · {cpu:,.0f}"


def _started(server: str, model: str, results: Results) -> list[str]:
    own = [each for each in results.starts if (each.server, each.model) == (server, model) and not each.failed]
    if not own:
        return ["", ""]
    seconds, star = middle(own, lambda start: start.seconds)
    peak = statistics.median(start.peak_bytes for start in own) / 1e6
    cpu, _ = middle(own, lambda start: start.cpu_s)
    return [f"{peak:,.0f}", f"{number(seconds, star)} ({number(cpu)})"]


def failures(results: Results) -> str:
    """Name what did not do its work."""
    told = dict.fromkeys(f"- {each.failed}" for each in (*results.starts, *results.scores) if each.failed)
    return "\n".join(["Did not do their work:", "", *told]) if told else ""


# ---------------------------------------------------------------- scoring


def scoring(results: Results) -> str:
    parts = []
    for model in dict.fromkeys(score.model for score in results.scores):
        own = [score for score in results.scores if score.model == model and not score.failed]
        rows = []
        sizes = sorted({score.rows for score in own}, reverse=True)
        for tool in [each.name for each in TOOLS]:
            for size in sizes:
                found = [score for score in own if (score.tool, score.rows) == (tool, size)]
                if found:
                    rows.append(_scored(tool, size, found))
        heads = ["tool", "rows", "seconds", "M rows/s", "CPU s", "peak MB"]
        title = models.TITLES[model].format(trees=models.SCORED_TREES)
        parts.append(
            f"#### {title}; ten columns, parquet to parquet\n\n{table(heads, rows)}\n\n{_alone(model, results)}"
        )
    return "\n\n".join(parts)


def _scored(tool: str, size: int, found: list[Score]) -> list[str]:
    seconds, star = middle(found, lambda score: score.seconds)
    cpu, peak = (middle(found, of)[0] for of in (lambda s: s.cpu_s, lambda s: s.peak_bytes / 1e6))
    return [
        _bold(tool),
        f"{size:,}",
        number(seconds, star),
        f"{size / seconds / 1e6:.2f}{star}",
        number(cpu),
        f"{peak:,.0f}",
    ]


def _alone(model: str, results: Results) -> str:
    names = dict.fromkeys(each.name for each in results.figures if each.name.endswith(f" alone, {model}"))
    told = [f"{name.partition(' alone')[0]} {_figure(name, results)}" for name in names]
    return f"Alone, on all cores, without the start of Python and the imports: {', '.join(told)}." if told else ""


# ---------------------------------------------------------------- figures and verdicts


def _figure(name: str, results: Results) -> str:
    found = [each for each in results.figures if each.name == name]
    value, star = middle(found, lambda figure: figure.value)
    return f"{number(value, star)} {found[0].unit}".strip()


def figures(results: Results) -> str:
    names = dict.fromkeys(each.name for each in results.figures if " alone, " not in each.name)
    return table(["what", "median"], ([name, _figure(name, results)] for name in names)) if names else ""


def about(results: Results) -> str:
    rounds = {
        "serving": len({each.round for each in results.cells}),
        "scoring": len({each.round for each in results.scores}),
    }
    # Runs with different parts may have measured different figures.
    taken = Counter(name for name, _round in {(each.name, each.round) for each in results.figures})
    rounds["single figures"] = max(taken.values(), default=0)
    told = {**results.about, "rounds": ", ".join(f"{kind} {count}" for kind, count in rounds.items() if count)}
    return "\n".join(f"- {key}: {value}" for key, value in told.items() if value)


def judged(results: Results) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [[each.claim, each.measured, words[each.kept]] for each in verdicts.of(results)]
    return table(["what was promised", "measured", "kept"], rows, align="---")


def markdown(results: Results) -> str:
    parts = {
        "### Serving": serving(results),
        "### Scoring a table": scoring(results),
        "### Single figures": figures(results),
        "### What was promised, and what was measured": judged(results),
        "### The run": about(results),
    }
    told = [f"{title}\n\n{text}" for title, text in parts.items() if text]
    return "\n\n".join([*told, *filter(None, [failures(results)])]) + "\n"


def put_into(page: Path, text: str) -> None:
    """Replace what lies between the two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        message = f"report: {page} has no {BEGIN} ... {END}"
        raise SystemExit(message)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of one run, or of several with different parts")
    parser.add_argument("--into", type=Path)
    asked = parser.parse_args()
    text = markdown(together([Results.load(path) for path in asked.results]))
    if asked.into:
        put_into(asked.into, text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
