"""Columns to lines of CSV or JSON, a whole column at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from modeldeploy.scoring.chunks import plain

if TYPE_CHECKING:
    import pyarrow as pa

_NEEDS_QUOTES = '["\\r\\n%s]|^$'
_NEEDS_ESCAPE = r'["\\\x00-\x1f]'


def csv_header(names: list[str], delimiter: str) -> bytes:
    """Give the first line."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def csv_lines(table: pa.Table, delimiter: str) -> bytes:
    """Give one line for each row; no value is an empty field, and empty text is a quoted empty field."""
    return _lines([_csv_column(column.combine_chunks(), delimiter) for column in table.columns], delimiter)


def json_lines(table: pa.Table) -> bytes:
    """Give one object for each row; NaN and infinities, which JSON does not know, are null."""
    import pyarrow as pa

    parts: list[Any] = []
    for at, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        parts.append(pa.scalar(("{" if at == 0 else ",") + orjson.dumps(name).decode() + ":", pa.large_string()))
        parts.append(_json_column(column.combine_chunks()).cast(pa.large_string()))
    return _lines([*parts, pa.scalar("}", pa.large_string())], "")


def _lines(columns: list[Any], delimiter: str) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc

    wide = [column.cast(pa.large_string()) for column in columns]
    rows = pc.binary_join_element_wise(*wide, pa.scalar(delimiter, pa.large_string()))
    ended = pc.binary_join_element_wise(rows, pa.scalar("\n", pa.large_string()), pa.scalar("", pa.large_string()))
    buffer = ended.buffers()[2]
    return b"" if buffer is None else bytes(buffer.to_pybytes())


def _csv_column(column: pa.Array, delimiter: str) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_text(column.type):
        text = _scalars(column)
        if text is not None:
            return pc.fill_null(text, "")
        column = pa.array([None if value is None else _dumps(value) for value in column.to_pylist()], pa.string())
    odd = pc.match_substring_regex(column, _NEEDS_QUOTES % delimiter)
    if pc.any(odd).as_py():
        doubled = pc.replace_substring(column, '"', '""')
        empty = pa.scalar("", doubled.type)
        quote = pa.scalar('"', doubled.type)
        column = pc.if_else(odd, pc.binary_join_element_wise(quote, doubled, quote, empty), column)
    return pc.fill_null(column, "")


def _json_column(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        finite = pc.fill_null(pc.is_finite(column), False)  # noqa: FBT003 - pyarrow's argument
        return pc.if_else(finite, column.cast(pa.string()), "null")
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return pc.fill_null(column.cast(pa.string()), "null")
    if not _is_text(column.type) or pc.any(pc.match_substring_regex(column, _NEEDS_ESCAPE)).as_py():
        return pa.array([_dumps(value) for value in column.to_pylist()], pa.string())
    text, quote = column.cast(pa.string()), pa.scalar('"', pa.string())
    return pc.fill_null(pc.binary_join_element_wise(quote, text, quote, pa.scalar("", pa.string())), "null")


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _scalars(column: pa.Array) -> pa.Array | None:
    """Spell numbers, flags and dates; None for what is not one value."""
    import pyarrow as pa

    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return None


def _dumps(value: object) -> str:
    return orjson.dumps(plain(value)).decode()
