"""The rows of a part, a chunk at a time; memory is bounded whatever the size of the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from modeldeploy.scoring import csvtext, jsontext
from modeldeploy.scoring.chunks import Chunk, no_rows
from modeldeploy.scoring.plan import Part, Plan

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BUFFER = 1 << 18
_DECODED = 16 << 20
"""Bytes of numbers that are decoded at the most at once; fewer rows than a usual row group take longer."""
_USUAL = 131_072
"""Rows of a usual row group."""


class Reader:
    """Reads parts; a part that follows the last one in a large row group goes on where that one ended."""

    def __init__(self, plan: Plan, schema: pa.Schema) -> None:
        self._plan = plan
        self._schema = schema
        self._open: _Run | None = None
        self._file: tuple[int, Any] = (-1, None)

    def chunks(self, part: Part) -> Iterator[Chunk]:
        """Give the rows of a part in order, at most ``chunk_rows`` at a time."""
        if self._plan.source.kind == "parquet":
            yield from self._of_groups(part)
            return
        for chunk in self._of_text(part):
            yield from chunk.slices(self._plan.chunk_rows)

    def _of_groups(self, part: Part) -> Iterator[Chunk]:
        run, self._open = self._open, None
        if run is None or run.place != (part.file, part.groups, part.skip):
            run = self._start(part)
        taken = 0
        while taken < part.size and (table := run.take(min(self._plan.chunk_rows, part.size - taken))) is not None:
            yield Chunk(self._typed(table), np.arange(taken, taken + table.num_rows), count=table.num_rows)
            taken += table.num_rows
        run.place = (part.file, part.groups, part.skip + taken)
        self._open = run

    def _typed(self, table: pa.Table) -> pa.Table:
        table = table.select(self._schema.names)
        return table if table.schema.equals(self._schema) else table.cast(self._schema)

    def _start(self, part: Part) -> _Run:
        """Begin with a part's row groups; its file stays open, for the next part is most likely of the same one."""
        import pyarrow.parquet as pq

        number, file = self._file
        if number != part.file:
            # A buffered stream: without it pyarrow holds each column of a row group whole, however large that is.
            file = pq.ParquetFile(self._plan.files[part.file].path, pre_buffer=False, buffer_size=_BUFFER)
            self._file = part.file, file
        return _Run.start(file, self._at_once(), self._schema, part)

    def _at_once(self) -> int:
        """Give how many rows are decoded at the same time: a chunk, or more of them where a row is small."""
        try:
            size: int = sum(field.type.bit_width for field in self._schema) // 8
        except ValueError:  # text and lists may be of any size
            return self._plan.chunk_rows
        return max(self._plan.chunk_rows, min(_USUAL, _DECODED // max(size, 1)))

    def _of_text(self, part: Part) -> Iterator[Chunk]:
        path, form = self._plan.files[part.file].path, self._plan.source
        if form.kind == "jsonl":
            yield from (
                [jsontext.parse(_bytes(path, part), self._schema)] if part.span else jsontext.stream(path, self._schema)
            )
            return
        head = csvtext.header(path, form)
        if part.span:
            yield csvtext.parse(_bytes(path, part), head.names, self._schema, form.delimiter)
        else:
            yield from csvtext.stream(path, form, head, self._schema)


def _bytes(path: str, part: Part) -> bytes:
    start, stop = part.span
    with Path(path).open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


@attrs.define(eq=False)
class _Run:
    """Row groups being read in order."""

    batches: Iterator[pa.RecordBatch]
    place: tuple[int, tuple[int, ...], int]
    """The file, its row groups, and how many rows of them were taken."""
    rest: pa.Table

    @classmethod
    def start(cls, file: pq.ParquetFile, rows: int, schema: pa.Schema, part: Part) -> _Run:
        order = [name for name in file.schema_arrow.names if name in schema.names]
        batches = file.iter_batches(rows, row_groups=list(range(*part.groups)), columns=order, use_threads=False)
        run = cls(batches, (part.file, part.groups, 0), no_rows(schema))
        left = part.skip
        while left and (skipped := run.take(min(left, rows))) is not None:
            left -= skipped.num_rows
        return run

    def take(self, rows: int) -> pa.Table | None:
        """Give the next rows, at most so many; None at the end."""
        import pyarrow as pa

        held = self.rest
        while held.num_rows == 0:
            batch = next(self.batches, None)
            if batch is None:
                return None
            held = pa.Table.from_batches([batch])
        self.rest = held.slice(rows)
        return held.slice(0, rows)
