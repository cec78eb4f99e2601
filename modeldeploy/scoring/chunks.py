"""What travels from the readers to the model: a piece of a table, where its rows come from, and the rows that are bad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 60


@attrs.frozen
class Bad:
    """A row that is set aside."""

    row: int
    """Its number in the part, from 0."""
    reason: str
    values: Mapping[str, Any]
    """What it holds: by column, or under ``"text"`` when it could not be read at all."""


@attrs.frozen(eq=False)
class Chunk:
    """Some consecutive rows of a part."""

    table: pa.Table
    """The readable rows; the columns that the layout reads, in its order and of its types."""
    rows: NDArray[np.int64]
    """The number in the part of each row of ``table``."""
    bad: tuple[Bad, ...] = ()
    """The rows that could not be read."""
    count: int = 0
    """All rows taken from the file, bad ones included."""

    def slices(self, size: int) -> list[Chunk]:
        """Cut into chunks of at most ``size`` readable rows; the bad rows go with the first."""
        if len(self.rows) <= size:
            return [self]
        starts = range(0, len(self.rows), size)
        first, *rest = [Chunk(self.table.slice(at, size), self.rows[at : at + size]) for at in starts]
        return [attrs.evolve(first, bad=self.bad, count=self.count), *rest]


def no_rows(schema: pa.Schema) -> pa.Table:
    """Give a table without rows; ``schema.empty_table()`` imports pandas."""
    import pyarrow as pa

    return pa.Table.from_batches([], schema=schema)


def plain(value: object) -> object:
    """Give a value of a table in a form that JSON holds."""
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


def row_values(table: pa.Table, at: int) -> dict[str, Any]:
    """Give one row by column."""
    return {name: plain(column[at].as_py()) for name, column in zip(table.column_names, table.columns, strict=True)}


def shorten(text: str) -> str:
    """Cut a value that is too long to show in an error."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
