"""What was measured: values that go to JSON and come back."""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import attrs

HERE = Path(__file__).resolve().parent
QUIET_CORES = 0.15


@attrs.frozen
class Cell:
    """One server under one load; errors are answers other than 200 and broken connections."""

    server: str
    model: str
    form: str
    rows: int
    connections: int
    round: int
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    """Of the server's whole tree."""
    errors: int
    foreign: float
    """Cores that other programs took meanwhile."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Server CPU for each request."""
        return 1e6 * self.cpu_s / max(1, self.requests)


@attrs.frozen
class Start:
    """From the command to the first right answer, and the most memory seen under load; ``failed`` says why there was none."""

    server: str
    model: str
    round: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    foreign: float
    failed: str = ""


@attrs.frozen
class Score:
    """One table scored, from the command to its end."""

    tool: str
    model: str
    rows: int
    round: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    foreign: float
    failed: str = ""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


@attrs.frozen
class Figure:
    """One figure by itself."""

    name: str
    value: float
    unit: str
    round: int
    foreign: float


@attrs.define
class Results:
    about: dict[str, str] = attrs.field(factory=dict)
    cells: list[Cell] = attrs.field(factory=list)
    starts: list[Start] = attrs.field(factory=list)
    scores: list[Score] = attrs.field(factory=list)
    figures: list[Figure] = attrs.field(factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(attrs.asdict(self), indent=1))
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        found = json.loads(path.read_text())
        return cls(
            found["about"],
            [Cell(**each) for each in found["cells"]],
            [Start(**each) for each in found["starts"]],
            [Score(**each) for each in found["scores"]],
            [Figure(**each) for each in found["figures"]],
        )


def together(parts: Sequence[Results]) -> Results:
    """Put runs together: what was measured in one, and the rounds of the others after it; what differs between the runs is told for each."""
    told: dict[str, dict[str, None]] = {}
    for part in parts:
        for key, text in part.about.items():
            # What several runs have in common is told once.
            told.setdefault(key, {}).setdefault(text)
    about = {key: "; then ".join(filter(None, texts)) for key, texts in told.items()}
    joined = [list(itertools.chain(*each)) for each in zip(*_one_after_another(parts), strict=True)]
    return Results(about, *joined)


def _one_after_another(parts: Sequence[Results]) -> Iterator[tuple[list[Any], ...]]:
    """Give what each run measured, its rounds numbered on from those of the run before."""
    last = 0
    for part in parts:
        lists = part.cells, part.starts, part.scores, part.figures
        yield tuple([attrs.evolve(each, round=each.round + last) for each in found] for found in lists)
        last += max((each.round for found in lists for each in found), default=0)


def about(**more: str) -> dict[str, str]:
    """Say where and when: what a reader needs to compare."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    ours = ("numpy", "scikit-learn", "onnxruntime", "pyarrow", "orjson", "uvloop", "httptools")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores of {cpu.partition(': ')[2]}, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ours),
        **more,
    }


def commit() -> str:
    """Name the commit that was measured, where this is a checkout."""
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip()
