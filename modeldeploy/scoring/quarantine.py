"""The file of bad rows: file, row number, key, reason and values of each, in the order of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modeldeploy.scoring import durable
from modeldeploy.scoring.job import Job, bad_name, temporary
from modeldeploy.scoring.plan import Plan

if TYPE_CHECKING:
    from modeldeploy.scoring.partwork import Done


class Quarantine:
    """The bad rows of the parts that are done, and of one that was given up."""

    def __init__(
        self, job: Job, plan: Plan, done: Mapping[int, Done], *, partial: Done | None = None, run: str = ""
    ) -> None:
        self._job = job
        self.plan = plan
        self._done = done
        self._partial = partial
        self._run = run

    def write(self) -> Path:
        """Write the file beside the output, or take an old one away when no row is bad; durable when this returns."""
        path = self._job.quarantine
        records = self.records()
        first = next(records, None)
        if first is None:
            path.unlink(missing_ok=True)
            return path
        waiting = self._job.parts / ".quarantine.tmp"
        with durable.removing(waiting), waiting.open("wb") as file:
            file.write(_line(first))
            file.writelines(_line(record) for record in records)
            durable.flush(file)
        durable.rename(waiting, path)
        return path

    def first(self, count: int) -> list[str]:
        """Describe the first bad rows for an error."""
        found = []
        for record, _count in zip(self.records(), range(count), strict=False):
            key = f" (key {record['key']!r})" if record["key"] is not None else ""
            found.append(f"row {record['row']} of {record['file']!r}{key}: {record['reason']}")
        return found

    def records(self) -> Iterator[dict[str, Any]]:
        """Give the bad rows with their number in their file; None where a part before it is not done and rows are not counted yet."""
        for part, base in self._bases():
            path = self._path(part)
            if path is None:
                continue
            with path.open("rb") as file:
                for line in file:
                    record = orjson.loads(line)
                    row = None if base is None else base + record["row"]
                    yield {**record, "row": row}

    def _path(self, part: int) -> Path | None:
        if self._partial is not None and self._partial.part == part:
            return temporary(self._job.parts, bad_name(part), self._run)
        done = self._done.get(part)
        return self._job.parts / bad_name(part) if done is not None and done.bad_rows else None

    def _bases(self) -> Iterator[tuple[int, int | None]]:
        """Give each part with the number of its first row in its file."""
        file, known = -1, None
        for part in self.plan.parts:
            if part.file != file:
                file, known = part.file, 0
            yield part.number, known
            if known is not None:
                done = self._done.get(part.number)
                rows = part.size if self.plan.rows is not None else done.rows_in if done else None
                known = None if rows is None else known + rows


def _line(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record) + b"\n"
