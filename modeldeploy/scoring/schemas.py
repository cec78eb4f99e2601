"""The columns of the input files and their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.scoring import csvtext
from modeldeploy.scoring.convert import NULLS
from modeldeploy.scoring.formats import Format

if TYPE_CHECKING:
    import pyarrow as pa

LIKELY = b"likely"
"""Metadata of a text column: what most of its values look like."""
_LOOKS = {
    "int": r"^\s*[+-]?\d+\s*$",
    "float": r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$",
    "bool": "^(?i:true|false)$",
}
_SAMPLE = 4 << 20
_LONG_NUMBER = r"^\s*[+-]?\d{16,}(\.\d*)?\s*$"
"""More digits than a float holds: a number like this is an identifier and stays text."""


def need_pyarrow() -> None:
    """Raise MissingDependencyError with the command that installs what scoring tables needs."""
    try:
        import pyarrow.parquet  # noqa: F401 - only whether it is there
    except ImportError as error:
        message = "scoring a table needs pyarrow, which is not installed"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[batch]'") from error


def of_file(path: str, form: Format) -> pa.Schema:
    """Read the columns of one file; for text, types come from its first megabytes. ConfigurationError when it cannot be read."""
    import pyarrow as pa

    readers = {"parquet": _of_parquet, "csv": _of_csv, "jsonl": _of_jsonl}
    try:
        schema = readers[form.kind](path, form)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as error:
        message = f"input file {path!r} cannot be read as {form.suffix[1:]}: {error}"
        raise ConfigurationError(message, hint="check the file, or give format=") from error
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        message = f"input file {path!r} has column {twice[0]!r} twice"
        raise ConfigurationError(message, hint="rename one of them")
    return schema


def together(files: Sequence[str], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Find the columns that hold for all files: those of the first, widened where numbers differ. ConfigurationError names what does not fit."""
    import pyarrow as pa

    whole = schemas[0].remove_metadata()
    for path, schema in zip(files[1:], schemas[1:], strict=True):
        missing = [name for name in whole.names if name not in schema.names]
        if missing:
            message = f"input file {path!r} has no column {missing[0]!r}, which {files[0]!r} has"
            raise ConfigurationError(message, hint="all files of a job need the same columns")
        same = pa.schema([schema.field(name) for name in whole.names])
        try:
            whole = pa.unify_schemas([whole, same], promote_options="permissive").remove_metadata()
        except pa.ArrowTypeError as error:
            message = f"a column of input file {path!r} differs in type from {files[0]!r}: {error}"
            raise ConfigurationError(
                message, hint="give the files the same types, or score them in separate jobs"
            ) from error
    return whole


def _of_parquet(path: str, _form: Format) -> pa.Schema:
    import pyarrow.parquet as pq

    return pq.read_schema(path)


def _of_csv(path: str, form: Format) -> pa.Schema:
    import pyarrow as pa

    head = csvtext.header(path, form)
    text = pa.schema([(name, pa.string()) for name in head.names])
    with csvtext.open_text(path, gzip=form.gzip) as file:
        file.read(head.start)
        sample = file.read(_SAMPLE)
    rows = sample if len(sample) < _SAMPLE else sample[: sample.rfind(b"\n") + 1]
    table = csvtext.parse(rows, head.names, text, form.delimiter).table
    return pa.schema([_field_of(name, table.column(name)) for name in head.names])


def _field_of(name: str, column: pa.ChunkedArray) -> pa.Field:
    import pyarrow as pa

    kind = _type_of(column)
    return pa.field(name, kind, metadata={LIKELY: _likely(column)} if pa.types.is_string(kind) else None)


def _likely(column: pa.ChunkedArray) -> str:
    """Tell what most values of a text column look like: a few bad rows do not make a column of numbers text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = column.filter(pc.invert(pc.is_in(column, pa.array(NULLS))))
    for kind, pattern in _LOOKS.items():
        if 2 * (pc.sum(pc.match_substring_regex(known, pattern)).as_py() or 0) >= max(len(known), 1):
            return kind
    return "null" if not len(known) else "string"


def _type_of(column: pa.ChunkedArray) -> pa.DataType:
    """Give the narrowest of int64, float64 and bool that holds each value as it is written; text otherwise."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = column.filter(pc.invert(pc.is_in(column, pa.array(NULLS)))).combine_chunks()
    if not len(known):
        return pa.string()
    whole = _cast(known, pa.int64())
    if whole is not None:
        # A zip code such as 007 is not the number 7.
        return pa.int64() if whole.cast(pa.string()).equals(pc.utf8_trim_whitespace(known)) else pa.string()
    if _cast(known, pa.float64()) is not None:
        return pa.string() if pc.any(pc.match_substring_regex(known, _LONG_NUMBER)).as_py() else pa.float64()
    flags = pc.all(pc.match_substring_regex(known, "^(?i:true|false)$")).as_py()
    return pa.bool_() if flags else pa.string()


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    import pyarrow as pa

    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def _of_jsonl(path: str, form: Format) -> pa.Schema:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    with csvtext.open_text(path, gzip=form.gzip) as file:
        sample = file.read(_SAMPLE)
    lines = sample if len(sample) < _SAMPLE else sample[: sample.rfind(b"\n") + 1]
    if not lines.strip():
        message = f"input file {path!r} holds no line"
        raise ConfigurationError(message, hint="a file of JSON Lines needs at least one line, which tells the columns")
    reading = arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    try:
        schema = arrow_json.read_json(pa.py_buffer(lines), read_options=reading).schema
    except pa.ArrowInvalid:
        schema = _of_good_lines(lines)
    return pa.schema([_as_written(field) for field in schema])


def _of_good_lines(lines: bytes) -> pa.Schema:
    """Take the types that most lines have; the other lines become bad rows when they are scored."""
    import orjson
    import pyarrow as pa

    counts: dict[str, dict[pa.DataType, int]] = {}
    for line in lines.splitlines():
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        for name, value in record.items() if isinstance(record, dict) else ():
            kinds = counts.setdefault(name, {})
            kind = pa.infer_type([value]) if not isinstance(value, dict | list) else pa.string()
            kinds[kind] = kinds.get(kind, 0) + 1
    if not counts:
        message = "no line is a JSON object"
        raise pa.ArrowInvalid(message)
    return pa.schema([(name, _most(kinds)) for name, kinds in counts.items()])


def _most(kinds: dict[pa.DataType, int]) -> pa.DataType:
    import pyarrow as pa

    known = {kind: count for kind, count in kinds.items() if not pa.types.is_null(kind)}
    if {pa.int64(), pa.float64()} <= set(known):
        known[pa.float64()] += known.pop(pa.int64())
    return max(known, key=lambda kind: known[kind], default=pa.string())


def _as_written(field: pa.Field) -> pa.Field:
    """Keep dates as the text that they are in the file; a column without a value fits anything."""
    import pyarrow as pa

    if pa.types.is_null(field.type):
        return pa.field(field.name, pa.string(), metadata={LIKELY: "null"})
    return field.with_type(pa.string()) if pa.types.is_temporal(field.type) else field
