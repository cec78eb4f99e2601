"""CSV: the header, places where a file may be cut, and its bytes to typed columns."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import attrs
import numpy as np

from modeldeploy.errors import ConfigurationError
from modeldeploy.scoring.chunks import Bad, Chunk, no_rows
from modeldeploy.scoring.convert import Loose, from_text, settle
from modeldeploy.scoring.formats import Format

if TYPE_CHECKING:
    import pyarrow as pa

_BOM = b"\xef\xbb\xbf"
_HEAD = 1 << 20
_BLOCK = 8 << 20
_QUOTE, _NEWLINE, _RETURN = 34, 10, 13


@attrs.frozen
class Header:
    """The first line of a file."""

    names: tuple[str, ...]
    start: int
    """Where the rows begin, in (decompressed) bytes."""


def open_text(path: str, *, gzip: bool) -> IO[bytes]:
    """Open a text file for reading its decompressed bytes."""
    if not gzip:
        return Path(path).open("rb")
    import gzip as library

    return cast("IO[bytes]", library.open(path, "rb"))


def header(path: str, form: Format) -> Header:
    """Read the column names; ConfigurationError when there are none or one occurs twice."""
    with open_text(path, gzip=form.gzip) as file:
        head = file.read(_HEAD)
    start = len(_BOM) if head.startswith(_BOM) else 0
    end = _first_row_end(head, start)
    try:
        text = head[start:end].decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"input file {path!r} is not UTF-8 text"
        raise ConfigurationError(message, hint="save it as UTF-8") from error
    names, *more = list(csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter)) or [[]]
    if any(more):
        message = f"the lines of input file {path!r} end in a carriage return alone"
        raise ConfigurationError(message, hint="save it with line feeds, as CSV for Windows or Unix")
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        message = (
            f"input file {path!r} has column {twice[0]!r} twice" if twice else f"input file {path!r} has no header line"
        )
        raise ConfigurationError(message, hint="its first line must name every column once")
    return Header(tuple(names), end)


def _first_row_end(head: bytes, start: int) -> int:
    end = start
    while (end := head.find(b"\n", end) + 1) > 0:
        if head.count(b'"', start, end) % 2 == 0:
            return end
    return len(head)


def cuts(path: str, start: int, size: int, delimiter: str) -> list[tuple[int, int]] | None:
    """Cut the rows into byte ranges of about ``size``, each ending after a row.

    A newline ends a row when the quotes before it are even in number. That is only so when every opening quote stands at the start of a
    field; None when one does not, and the file must then be read from its beginning.
    """
    ends, inside, before, at = [], 0, _NEWLINE, start
    wanted = start + size
    with Path(path).open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            bytes_ = np.frombuffer(block, dtype=np.uint8)
            quotes = np.flatnonzero(bytes_ == _QUOTE)
            if not _opened_well(bytes_, quotes, inside, before, ord(delimiter)):
                return None
            while (end := _row_end(bytes_, quotes, inside, wanted - at)) is not None:
                ends.append(at + end)
                wanted = at + end + size
            inside, before, at = (inside + len(quotes)) % 2, int(bytes_[-1]), at + len(block)
    edges = [start, *(end for end in ends if end < at), at]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]


def _opened_well(block: Any, quotes: Any, inside: int, before: int, delimiter: int) -> bool:
    opening = quotes[inside::2] if inside else quotes[::2]
    previous = np.where(opening > 0, block[opening - 1], before)
    return bool(np.isin(previous, (delimiter, _NEWLINE, _RETURN, _QUOTE)).all())


def _row_end(block: Any, quotes: Any, inside: int, since: int) -> int | None:
    """Find where the first row ends that ends at or after byte ``since``."""
    at = max(since - 1, 0)
    while at < len(block):
        newlines = np.flatnonzero(block[at : at + (1 << 16)] == _NEWLINE) + at
        outside = newlines[(np.searchsorted(quotes, newlines) + inside) % 2 == 0]
        if len(outside):
            return int(outside[0]) + 1
        at += 1 << 16
    return None


def parse(data: bytes, names: tuple[str, ...], schema: pa.Schema, delimiter: str) -> Chunk:
    """Read whole rows; a row with too few or too many fields, or a value that does not fit, is a bad row."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    odd: list[Bad] = []
    if not data.strip(b"\r\n"):
        return Chunk(no_rows(schema), np.empty(0, dtype=np.int64))
    try:
        table = arrow_csv.read_csv(pa.py_buffer(data), **_options(names, schema, delimiter, odd, block=len(data) + 1))
    except pa.ArrowInvalid:
        odd.clear()
        raw = pa.schema([(name, pa.binary()) for name in schema.names])
        table = arrow_csv.read_csv(pa.py_buffer(data), **_options(names, raw, delimiter, odd, block=len(data) + 1))
        return _settle(table, odd, schema, 0, last=True)
    count = table.num_rows + len(odd)
    return Chunk(table.select(schema.names).cast(schema), _free(count, odd, 0), tuple(odd), count)


def stream(path: str, form: Format, head: Header, schema: pa.Schema) -> Iterator[Chunk]:
    """Read a file from its beginning, block by block; for what cannot be cut."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    odd: list[Bad] = []
    raw = pa.schema([(name, pa.binary()) for name in schema.names])
    with open_text(path, gzip=form.gzip) as file:
        file.read(head.start)
        try:
            reader = arrow_csv.open_csv(file, **_options(head.names, raw, form.delimiter, odd, block=_BLOCK))
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise
        taken = 0
        with contextlib.closing(reader):
            for batch in reader:
                chunk = _settle(pa.Table.from_batches([batch]), odd, schema, taken, last=False)
                taken += chunk.count
                yield chunk
        if odd:
            yield Chunk(no_rows(schema), np.empty(0, dtype=np.int64), tuple(odd), len(odd))


def _options(
    names: tuple[str, ...], schema: pa.Schema, delimiter: str, odd: list[Bad], *, block: int
) -> dict[str, Any]:
    from pyarrow import csv as arrow_csv

    def refuse(row: Any) -> str:
        reason = f"the row has {row.actual_columns} fields, expected {row.expected_columns}"
        odd.append(Bad(row.number - 1, reason, {"text": row.text}))
        return "skip"

    return {
        "read_options": arrow_csv.ReadOptions(column_names=list(names), use_threads=False, block_size=block),
        "parse_options": arrow_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse
        ),
        "convert_options": arrow_csv.ConvertOptions(
            column_types={field.name: field.type for field in schema}, include_columns=schema.names
        ),
    }


def _settle(table: pa.Table, odd: list[Bad], schema: pa.Schema, first: int, *, last: bool) -> Chunk:
    """Give raw fields their types; ``first`` is the number of the first row. Takes the odd rows that lie among them out of ``odd``."""
    rows: list[int] = []
    number, numbers = first, {each.row for each in odd}
    while len(rows) < table.num_rows:
        if number not in numbers:
            rows.append(number)
        number += 1
    # The reader looks ahead: odd rows behind the last good one go with a later block.
    ours = tuple(each for each in odd if last or each.row < number)
    odd[:] = odd[len(ours) :]
    columns = {name: table.column(name).combine_chunks() for name in schema.names}
    return settle(Loose(columns, rows, ours, len(rows) + len(ours)), schema, from_text)


def _free(count: int, odd: list[Bad], first: int) -> Any:
    every = np.arange(first, first + count, dtype=np.int64)
    return np.delete(every, [each.row - first for each in odd]) if odd else every
