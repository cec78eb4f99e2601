"""Columns of text to the types that are wanted; what does not fit is found by halving and named."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np

from modeldeploy.scoring.chunks import Bad, Chunk, plain, shorten

if TYPE_CHECKING:
    import pyarrow as pa

NULLS = ["", "#N/A", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"]
"""Spellings of "no value" in a CSV column of numbers or flags; in a column of text they are text."""

Convert: TypeAlias = "Callable[[Any], pa.Array]"


@attrs.frozen(eq=False)
class Loose:
    """Rows that were read without types: columns as the file has them, and their numbers in the part."""

    columns: dict[str, Any]
    rows: list[int]
    bad: tuple[Bad, ...]
    count: int


def settle(loose: Loose, schema: pa.Schema, convert: Callable[[Any, pa.DataType], pa.Array]) -> Chunk:
    """Give the loose columns the types of ``schema``; rows with a value that does not fit become bad rows."""
    import pyarrow as pa

    columns: list[pa.Array] = []
    misfits: dict[int, str] = {}
    for field in schema:
        values = loose.columns[field.name]
        column, wrong = _halve(values, functools.partial(_swapped, convert, field.type), pa.nulls(1, field.type))
        columns.append(column)
        for at in wrong:
            value = plain(_item(values, at))
            misfits.setdefault(at, f"column {field.name!r} holds {shorten(repr(value))}, which is not {field.type}")
    bad = [
        Bad(loose.rows[at], reason, {name: plain(_item(values, at)) for name, values in loose.columns.items()})
        for at, reason in misfits.items()
    ]
    good = np.setdiff1d(np.arange(len(loose.rows)), np.fromiter(misfits, dtype=np.int64, count=len(misfits)))
    table = pa.Table.from_arrays(columns, schema=schema)
    return Chunk(
        table=table.take(good) if misfits else table,
        rows=np.asarray(loose.rows, dtype=np.int64)[good],
        bad=tuple(sorted([*loose.bad, *bad], key=lambda each: each.row)),
        count=loose.count,
    )


def _swapped(convert: Callable[[Any, pa.DataType], pa.Array], kind: pa.DataType, values: Any) -> pa.Array:
    return convert(values, kind)


def _item(values: Any, at: int) -> object:
    value = values[at]
    return value.as_py() if hasattr(value, "as_py") else value


def _halve(values: Any, convert: Convert, null: pa.Array) -> tuple[Any, list[int]]:
    """Convert what converts; the positions of the rest, which are null."""
    import pyarrow as pa

    try:
        return convert(values), []
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError, TypeError):
        if len(values) == 1:
            return null, [0]
    middle = len(values) // 2
    left, wrong_left = _halve(values[:middle], convert, null)
    right, wrong_right = _halve(values[middle:], convert, null)
    return pa.concat_arrays([left, right]), wrong_left + [middle + at for at in wrong_right]


def from_text(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Read raw CSV fields as the CSV reader would."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = values.cast(pa.string())
    if pa.types.is_string(kind):
        return text
    trimmed = pc.utf8_trim_whitespace(text)
    known = pc.if_else(pc.is_in(trimmed, pa.array(NULLS)), pa.scalar(None, pa.string()), trimmed)
    return known.cast(kind)


def from_python(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make an array of JSON values; a flag is not a number and a number is not text."""
    import pyarrow as pa

    strict = pa.array(values)
    if pa.types.is_null(strict.type) or strict.type == kind:
        return strict.cast(kind)
    if (
        pa.types.is_boolean(strict.type)
        or pa.types.is_string(strict.type)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
    ):
        message = f"{strict.type} is not {kind}"
        raise TypeError(message)
    return strict.cast(kind)
