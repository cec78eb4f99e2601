"""One part: read, score, write; the result lies under temporary names until the runner has checked it in."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.scoring import durable
from modeldeploy.scoring.chunks import Bad
from modeldeploy.scoring.job import Job, bad_name, data_name, temporary
from modeldeploy.scoring.layout import Layout
from modeldeploy.scoring.plan import Part, Plan
from modeldeploy.scoring.predict import Caution, Predictor, Scorer, TooManyBadError
from modeldeploy.scoring.reading import Reader
from modeldeploy.scoring.writing import Writer


@attrs.frozen
class Order:
    """A part to be scored, and what is known about it."""

    part: int
    run: str = "0"
    """Which run of the job this is; part of the temporary names."""
    limit: int | None = 0
    """How many bad rows it may have."""
    suspects: tuple[tuple[int, int], ...] = ()
    poison: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Row number (as text, for JSON) to how the process ended."""

    @property
    def caution(self) -> Caution:
        """What the scorer must heed."""
        return Caution(tuple(self.suspects), {int(row): why for row, why in self.poison.items()})


@attrs.frozen
class Done:
    """What became of a part."""

    part: int
    rows_in: int
    rows_out: int
    bad_rows: int
    sha256: str
    size: int
    bad_sha256: str = ""
    too_many: bool = False
    """The limit was passed: there is no result, only the bad rows so far."""


class PartWork:
    """Scores parts with a model that stays loaded."""

    def __init__(self, model: Predictor, job: Job) -> None:
        self._model = model
        self._job = job

    # A model may be loaded while the job is still being planned.

    @functools.cached_property
    def _plan(self) -> Plan:
        return self._job.plan()

    @functools.cached_property
    def _layout(self) -> Layout:
        layout = self._plan.layout(self._job.request().spec)
        if not (layout.plain and self._plan.source.kind == self._plan.target.kind == "parquet"):
            # pyarrow would import it in the middle of a part, and a model in another thread, which only asks whether it is loaded, find half.
            with contextlib.suppress(ImportError):
                importlib.import_module("pandas")
        return layout

    @functools.cached_property
    def _reader(self) -> Reader:
        return Reader(self._plan, self._layout.read)

    @functools.cached_property
    def _folder(self) -> Path:
        return self._job.parts

    def run(self, order: Order, starting: Callable[[int, int], None]) -> Done:
        """Score one part; ``starting`` is told each stretch of rows before the model sees it."""
        part = self._plan.parts[order.part]
        scorer = Scorer(self._model, self._layout, limit=order.limit, caution=order.caution, starting=starting)
        path = temporary(self._folder, data_name(self._plan, part.number), order.run)
        try:
            rows_in, rows_out = self._write(path, part, scorer)
        except TooManyBadError as error:
            self._write_bad(part, error.bad, order.run)
            return Done(part.number, 0, 0, len(error.bad), "", 0, too_many=True)
        sha = self._write_bad(part, scorer.bad, order.run) if scorer.bad else ""
        return Done(part.number, rows_in, rows_out, len(scorer.bad), durable.digest(path), path.stat().st_size, sha)

    def _write(self, path: Path, part: Part, scorer: Scorer) -> tuple[int, int]:
        rows_in = rows_out = 0
        header = self._plan.directory
        with durable.removing(path), Writer(path, self._plan.target, self._layout.written, header=header) as out:
            for chunk in self._reader.chunks(part):
                result = scorer.score(chunk)
                out.write(result)
                rows_in, rows_out = rows_in + chunk.count, rows_out + result.num_rows
        return rows_in, rows_out

    def _write_bad(self, part: Part, bad: Sequence[Bad], run: str) -> str:
        """Write the bad rows by number; the row's number in the file is added when the parts before it are known."""
        path = temporary(self._folder, bad_name(part.number), run)
        with durable.removing(path), path.open("wb") as file:
            for each in sorted(bad, key=lambda bad: bad.row):
                file.write(orjson.dumps(self._record(part, each), default=str) + b"\n")
        return durable.digest(path)

    def _record(self, part: Part, bad: Bad) -> dict[str, Any]:
        key = bad.values.get(self._layout.key) if self._layout.key is not None else None
        return {
            "file": self._plan.files[part.file].path,
            "row": bad.row,
            "key": key,
            "reason": bad.reason,
            "values": dict(bad.values),
        }
