"""JSON Lines: places where a file may be cut, and its bytes to typed columns."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from modeldeploy.scoring.chunks import Bad, Chunk, no_rows
from modeldeploy.scoring.convert import Loose, from_python, settle
from modeldeploy.scoring.csvtext import open_text

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 16 << 20


def cuts(path: str, size: int) -> list[tuple[int, int]]:
    """Cut a file into byte ranges of about ``size``, each ending after a line; JSON holds no bare newline."""
    whole, edges = Path(path).stat().st_size, [0]
    with Path(path).open("rb") as file:
        while edges[-1] + size < whole:
            file.seek(edges[-1] + size - 1)
            file.readline()
            edges.append(min(file.tell(), whole))
    edges = edges if edges[-1] == whole else [*edges, whole]
    return list(itertools.pairwise(edges))


def stream(path: str, schema: pa.Schema) -> Iterator[Chunk]:
    """Read a compressed file block by block."""
    taken, rest = 0, b""
    with open_text(path, gzip=True) as file:
        while block := file.read(_BLOCK):
            lines, newline, rest = (rest + block).rpartition(b"\n")
            chunk = parse(lines + newline, schema, taken)
            taken += chunk.count
            yield chunk
    yield parse(rest, schema, taken)


def parse(data: bytes, schema: pa.Schema, first: int = 0) -> Chunk:
    """Read whole lines, numbered from ``first``; one that is not an object of the wanted types is a bad row. Empty lines do not count."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not data.strip():
        return Chunk(no_rows(schema), np.empty(0, dtype=np.int64))
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    reading = arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    try:
        table = arrow_json.read_json(io.BytesIO(data), read_options=reading, parse_options=options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return settle(_loose(data, schema, first), schema, from_python)
    rows = np.arange(first, first + table.num_rows, dtype=np.int64)
    return Chunk(table.select(schema.names), rows, count=table.num_rows)


def _loose(data: bytes, schema: pa.Schema, first: int) -> Loose:
    columns: dict[str, Any] = {name: [] for name in schema.names}
    rows, bad, number = [], [], first
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        record = _record(line)
        if isinstance(record, dict):
            rows.append(number)
            for name, values in columns.items():
                values.append(record.get(name))
        else:
            bad.append(Bad(number, record, {"text": line.decode("utf-8", "backslashreplace")}))
        number += 1
    return Loose(columns, rows, tuple(bad), number - first)


def _record(line: bytes) -> dict[str, Any] | str:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"the line is not JSON: {error}"
    return record if isinstance(record, dict) else f"the line holds {type(record).__name__}, expected an object"
