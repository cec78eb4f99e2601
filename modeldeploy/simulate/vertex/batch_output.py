"""The output of a batch prediction job: files of predictions, and what went wrong beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.vertex.batch_rows import Row
from modeldeploy.simulate.vertex.objects import Objects, place_of

_UNKNOWN = 2
"""The code of an error of which nothing more is known."""


@attrs.frozen
class Failure:
    """Rows that failed together, and why."""

    rows: Sequence[Row]
    reason: str


@attrs.frozen
class Names:
    """How the files are called: as it is practised, or as the API's description has it."""

    documented: bool

    def folder(self, prefix: str, model: str, at: float) -> str:
        """Name the folder of a job."""
        moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        moment = moment if self.documented else moment.replace("-", "_").replace(":", "_").replace(".", "_")
        return f"{prefix.rstrip('/')}/prediction-{model}-{moment}"

    def results(self, number: int, count: int) -> str:
        """Name a file of predictions."""
        return (
            f"predictions_{number + 1:04d}.jsonl"
            if self.documented
            else f"prediction.results-{number:05d}-of-{count:05d}"
        )

    @property
    def errors(self) -> str:
        """Name the file that says what went wrong."""
        return "errors_0001.jsonl" if self.documented else "prediction.errors_stats-00000-of-00001"


@attrs.define(eq=False)
class Output:
    """Writes the files of one job."""

    objects: Objects
    names: Names
    folder: str

    def write(self, parts: Sequence[Sequence[bytes]], failures: Sequence[Failure], now: float) -> None:
        """Write the lines of each file, and a file of what went wrong."""
        for number, lines in enumerate(parts):
            self._put(self.names.results(number, len(parts)), b"".join(lines), now)
        lines = [line for each in failures for line in self._told(each)]
        # The practised file is always there, also when there is nothing to tell.
        if lines or not self.names.documented:
            self._put(self.names.errors, b"".join(lines), now)

    def _told(self, failure: Failure) -> list[bytes]:
        if self.names.documented:
            error = {"code": _UNKNOWN, "message": failure.reason}
            return [line({**row.told, "error": error}) for row in failure.rows]
        # Which rows it was is not said, only how many.
        return [f"({failure.reason!r}, {len(failure.rows)})\n".encode()]

    def _put(self, name: str, data: bytes, now: float) -> None:
        bucket, folder = place_of(self.folder)
        settings = {"contentType": "application/octet-stream"}
        self.objects.write((bucket, f"{folder}/{name}"), io.BytesIO(data), now, settings=settings)


def line(value: Any) -> bytes:
    """Write a value as a line of JSON."""
    return orjson.dumps(value) + b"\n"
