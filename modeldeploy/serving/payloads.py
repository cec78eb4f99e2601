"""Rows as people write them: JSON in its usual shapes, CSV and JSON Lines, to columns and back.

SageMaker, Vertex AI and Azure ML leave the body to the container; here all three take the same shapes and answer ``predictions``.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.serving import examples, matrix
from modeldeploy.serving.messages import JSON_TYPE, RefusedError, Response
from modeldeploy.serving.wire import load_json
from modeldeploy.values.model import DType, Field, Signature

CSV_TYPE = "text/csv"
LINES_TYPE = "application/jsonlines"
WRITTEN = {JSON_TYPE: JSON_TYPE, LINES_TYPE: LINES_TYPE, CSV_TYPE: f"{CSV_TYPE}; charset=utf-8"}
"""A form -> the content type of an answer in it."""
_LINES = frozenset(
    {LINES_TYPE, "application/x-jsonlines", "application/jsonl", "application/x-ndjson", "application/ndjson"}
)
_ANY = frozenset({"", "*/*", "application/*"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False}

Raw = Mapping[str, Any]


def decode(body: bytes, kind: str, signature: Signature) -> Raw:
    """Read a body of this form, one that ``plain_type`` named; RefusedError names what is wrong."""
    if kind == CSV_TYPE:
        return _from_csv(body, signature)
    if kind == LINES_TYPE:
        return _from_lines(body, signature)
    return _from_json(load_json(body), signature)


def _from_lines(body: bytes, signature: Signature) -> Raw:
    rows = [load_json(line) for line in body.splitlines() if line.strip()]
    if not rows:
        raise _empty_body(signature)
    return _from_rows(rows, signature)


def _empty_body(signature: Signature) -> RefusedError:
    # More often a mistake than a table without rows, which a CSV header or an empty list can say.
    return RefusedError(422, "the body is empty", hint=f"send {examples.instances(signature)}")


def plain_type(content_type: str) -> str:
    """Name the form of a body: JSON, CSV or JSON Lines; 415 for any other."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _LINES:
        return LINES_TYPE
    if kind in {"", JSON_TYPE, CSV_TYPE}:
        return kind or JSON_TYPE
    hint = f"send the header 'content-type' with {JSON_TYPE}, {CSV_TYPE} or {LINES_TYPE}"
    raise RefusedError(415, f"content type {kind[:80]!r} is not read here", hint=hint)


def accepted(accept: str, content_type: str) -> str:
    """Choose the form of the answer: the first of ``accept`` that is served, else that of the request."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in _ANY:
            return plain_type(content_type)
        if kind in _LINES:
            return LINES_TYPE
        if kind in {JSON_TYPE, CSV_TYPE}:
            return kind
    raise RefusedError(
        406, f"an answer as {accept[:80]!r} is not written here", hint=f"accept {JSON_TYPE} or {CSV_TYPE}"
    )


def row_keys(signature: Signature) -> frozenset[str]:
    """Name the keys under which a body may hold its rows as lists."""
    return frozenset(_ENVELOPES) - {"dataframe_split", *signature.names}


def read_rows(rows: Sequence[Any], signature: Signature) -> Raw:
    """Read rows that were taken out of JSON: objects, lists of values in the model's order, or the values of its only input."""
    return _from_rows(list(rows), signature)


# JSON.


def _from_json(document: Any, signature: Signature) -> Raw:
    if isinstance(document, list):
        return _from_rows(document, signature)
    if not isinstance(document, dict):
        raise _unknown_shape(signature)
    if len(document) == 1:
        ((key, rows),) = document.items()
        if key in _ENVELOPES and key not in signature.names:
            return _ENVELOPES[key](rows, signature)
    if len(document) == len(signature.inputs) and document.keys() == {field.name for field in signature.inputs}:
        return _from_columns(document, signature)
    for key, read in _ENVELOPES.items():
        if key in document:
            _check_rest(document, key)
            return read(document[key], signature)
    return _from_columns(document, signature)


def _unknown_shape(signature: Signature) -> RefusedError:
    return RefusedError(400, "the JSON has no shape that is read here", hint=f"send {examples.instances(signature)}")


def _check_rest(document: dict[str, Any], key: str) -> None:
    if len(document) == 1:
        return
    # Vertex AI sends "parameters" along; a model here takes none, so only an empty one means what it says.
    extra = sorted(each for each in document if each != key and not (each == "parameters" and not document[each]))
    if extra:
        raise RefusedError(
            400, f"{extra[0][:80]!r} beside {key!r} is not read here", field=extra[0][:80], hint="leave it out"
        )


def _from_rows(rows: Any, signature: Signature) -> Raw:
    if not isinstance(rows, list):
        raise _unknown_shape(signature)
    kinds = set(map(type, rows))
    fields = signature.inputs
    if not rows:
        return {field.name: [] for field in fields}
    if kinds == {dict}:
        return _from_records(rows, signature)
    if len(fields) == 1 and (fields[0].shape or kinds != {list}):
        short = matrix.rows_of(rows, signature) if kinds == {list} else None
        return {fields[0].name: rows} if short is None else short
    if kinds != {list}:
        raise RefusedError(400, "each row must be a list or an object", hint=f"send {examples.instances(signature)}")
    return _from_lists(rows, signature)


def _from_records(rows: list[dict[str, Any]], signature: Signature) -> Raw:
    fields = signature.inputs
    _check_records(rows, fields)
    names = [field.name for field in fields]
    short = matrix.rows_of([[row[name] for name in names] for row in rows], signature)
    return {name: [row[name] for row in rows] for name in names} if short is None else short


def _check_records(rows: list[dict[str, Any]], fields: Sequence[Field]) -> None:
    names = {field.name for field in fields}
    for at, row in enumerate(rows):
        if row.keys() != names:
            _refuse_record(row, at, fields)


def _refuse_record(row: dict[str, Any], at: int, fields: Sequence[Field]) -> None:
    names = [field.name for field in fields]
    missing = next((name for name in names if name not in row), None)
    if missing is not None:
        raise RefusedError(422, f"column {missing!r} is missing in row {at}", field=missing)
    extra = next(name for name in row if name not in names)[:80]
    raise RefusedError(
        422, f"column {extra!r} of row {at} is not known", field=extra, hint=f"the model takes {names[:5]}"
    )


def _from_lists(rows: list[list[Any]], signature: Signature) -> Raw:
    short = matrix.rows_of(rows, signature)
    if short is not None:
        return short
    fields = signature.inputs
    width = len(fields)
    if set(map(len, rows)) != {width}:
        at, row = next((at, row) for at, row in enumerate(rows) if len(row) != width)
        name = fields[min(len(row), width - 1)].name
        raise RefusedError(422, f"row {at} has {len(row)} values for {width} columns", field=name)
    return {field.name: column for field, column in zip(fields, zip(*rows, strict=True), strict=True)}


def _from_columns(columns: Any, signature: Signature) -> Raw:
    if isinstance(columns, list):
        return _from_rows(columns, signature)
    names = {field.name for field in signature.inputs}
    if not isinstance(columns, dict) or not columns or not names & columns.keys():
        raise _unknown_shape(signature)
    shapes = {field.name: field.shape for field in signature.inputs}
    if all(not shapes.get(name, (1,)) and not isinstance(value, list) for name, value in columns.items()):
        return {name: [value] for name, value in columns.items()}
    odd = next((name for name, value in columns.items() if not isinstance(value, list)), None)
    if odd is not None:
        raise RefusedError(422, f"column {odd[:80]!r} is not a list of values", field=odd[:80])
    return columns


def _from_split(table: Any, signature: Signature) -> Raw:
    if not isinstance(table, dict) or not {"columns", "data"} <= table.keys() <= {"columns", "data", "index"}:
        raise RefusedError(
            400, "a split table must hold 'columns' and 'data'", hint=f"or send {examples.instances(signature)}"
        )
    names, rows = table["columns"], table["data"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise RefusedError(400, "'columns' must be a list of different names")
    if not isinstance(rows, list) or set(map(type, rows)) - {list}:
        raise RefusedError(400, "'data' must be a list of rows")
    if not rows:
        _check_records([dict.fromkeys(names)], signature.inputs)
    return _from_rows([_record(names, row, at) for at, row in enumerate(rows)], signature)


def _record(names: list[str], row: list[Any], at: int) -> dict[str, Any]:
    if len(row) != len(names):
        raise RefusedError(
            422, f"row {at} has {len(row)} values for {len(names)} columns", field=names[-1] if names else None
        )
    return dict(zip(names, row, strict=True))


def _from_input_data(data: Any, signature: Signature) -> Raw:
    split = isinstance(data, dict) and "data" in data and "columns" in data
    return _from_split(data, signature) if split else _from_columns(data, signature)


_ENVELOPES: dict[str, Callable[[Any, Signature], Raw]] = {
    "instances": _from_rows,
    "inputs": _from_columns,
    "dataframe_split": _from_split,
    "dataframe_records": _from_rows,
    "data": _from_columns,
    "input_data": _from_input_data,
}


# CSV.


def _from_csv(body: bytes, signature: Signature) -> Raw:
    try:
        text = body.decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedError(400, f"the body is not CSV in UTF-8: {error}") from error
    names = [field.name for field in signature.inputs]
    header = _header(rows, names)
    if header is not None:
        return _by_header(header, rows[1:], signature)
    if not rows:
        raise _empty_body(signature)
    return _by_position(rows, signature)


def _header(rows: list[list[str]], names: list[str]) -> list[str] | None:
    """Tell a line of names from a line of values: at least half of the columns are named in it."""
    cells = [cell.strip() for cell in rows[0]] if rows else []
    return cells if len(set(cells) & set(names)) * 2 >= len(names) else None


def _by_header(header: list[str], rows: list[list[str]], signature: Signature) -> Raw:
    fields = {field.name: field for field in signature.inputs}
    records = [_record(header, row, at) for at, row in enumerate(rows)]
    if len(set(header)) < len(header):
        raise RefusedError(400, "the header names a column twice")
    _check_records(records or [dict.fromkeys(header)], signature.inputs)
    return {name: _cells(field, [record[name] for record in records]) for name, field in fields.items()}


def _by_position(rows: list[list[str]], signature: Signature) -> Raw:
    widths = [_width(field) for field in signature.inputs]
    if set(map(len, rows)) != {sum(widths)}:
        at, row = next((at, row) for at, row in enumerate(rows) if len(row) != sum(widths))
        message = f"row {at} has {len(row)} values for {sum(widths)} columns"
        raise RefusedError(
            422, message, field=_field_at(len(row), widths, signature), hint=f"send {examples.csv_row(signature)}"
        )
    columns, start = {}, 0
    for field, width in zip(signature.inputs, widths, strict=True):
        columns[field.name] = _column(field, [row[start : start + width] for row in rows])
        start += width
    return columns


def _width(field: Field) -> int:
    if None in field.shape:
        raise RefusedError(
            415, f"input {field.name!r} has no fixed shape and cannot be CSV", field=field.name, hint="send JSON"
        )
    return math.prod(size or 0 for size in field.shape)


def _field_at(cell: int, widths: list[int], signature: Signature) -> str:
    for field, width in zip(signature.inputs, widths, strict=True):
        cell -= width
        if cell < 0:
            return field.name
    return signature.inputs[-1].name


def _column(field: Field, rows: list[list[str]]) -> list[Any]:
    if not field.shape:
        return _cells(field, [row[0] for row in rows])
    return [_nest(_cells(field, row), field.shape) for row in rows]


def _nest(cells: list[Any], shape: tuple[int | None, ...]) -> list[Any]:
    for size in reversed(shape[1:]):
        step = size or 1
        cells = [cells[at : at + step] for at in range(0, len(cells), step)]
    return cells


def _cells(field: Field, cells: Sequence[str]) -> list[Any]:
    if field.dtype is DType.STRING:
        return [None if not cell and field.nullable else cell for cell in cells]
    read = _READERS.get(field.dtype, _integer if "int" in field.dtype.value else _float)
    values = []
    for row, cell in enumerate(cells):
        try:
            values.append(read(cell.strip()) if cell.strip() else None)
        except (ValueError, KeyError):
            message = f"column {field.name!r} holds {cell[:40]!r} in row {row}, expected {field.dtype.value}"
            raise RefusedError(422, message, field=field.name) from None
    return values


def _float(cell: str) -> float:
    if "_" in cell:
        raise ValueError(cell)
    return float(cell)


def _integer(cell: str) -> int:
    if "_" in cell:
        raise ValueError(cell)
    return int(cell)


_READERS: dict[DType, Callable[[str], Any]] = {DType.BOOL: lambda cell: _FLAGS[cell.lower()]}


# Answers.

_FEW = 8
"""Up to so many rows each, answers of several outputs or values are taken from rows that were made for all; more are written as arrays."""


class Writer:
    """Writes answers in one form, whose headers they share."""

    def __init__(self, form: str, told: Mapping[str, str]) -> None:
        self._form = form
        self._headers = {"content-type": WRITTEN[form], **told}

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Response:
        """Answer one caller."""
        return Response(200, write(outputs, self._form), self._headers)

    def many(self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[int]) -> list[Response] | None:
        """Answer several callers, each with so many of the rows; None where that gains nothing."""
        arrays = list(outputs.values())
        if self._form != JSON_TYPE:
            return None
        spans = list(itertools.pairwise(itertools.accumulate(sizes, initial=0)))
        if len(arrays) == 1 and arrays[0].ndim == 1 and arrays[0].dtype.kind in "biuf":
            # Written once and cut at the commas, for none of these values holds one.
            texts = orjson.dumps(np.ascontiguousarray(arrays[0]), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
            bodies = [b'{"predictions":[%b]}' % b",".join(texts[start:end]) for start, end in spans]
        elif spans[-1][1] <= _FEW * len(spans):
            rows = _rows(outputs)
            bodies = [orjson.dumps({"predictions": rows[start:end]}) for start, end in spans]
        else:
            return None
        return [Response(200, body, self._headers) for body in bodies]


def write(outputs: Mapping[str, NDArray[Any]], kind: str) -> bytes:
    """Write one prediction for each row, in the order of the rows, in the form ``kind``."""
    if kind == CSV_TYPE:
        return _to_csv(outputs)
    if kind == LINES_TYPE:
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in _rows(outputs))
    return _to_json(outputs)


def _to_json(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    if len(outputs) == 1:
        (array,) = outputs.values()
        if array.dtype.kind in "biuf" and array.flags.c_contiguous:
            return orjson.dumps({"predictions": array}, option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.dumps({"predictions": _rows(outputs)})


def _rows(outputs: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Give each row's prediction: the value of the only output, or an object of all."""
    columns = {name: _plain(array) for name, array in outputs.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind == "f":
        # Through JSON: NaN becomes null, and a float32 is written as short as it is.
        text = orjson.dumps(array.copy(order="C"), option=orjson.OPT_SERIALIZE_NUMPY)
        return list(orjson.loads(text))
    return list(array.tolist())


def _to_csv(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [_plain(array) for array in outputs.values()]
    writer.writerows([_cell(value) for part in row for value in _flat(part)] for row in zip(*columns, strict=True))
    return text.getvalue().encode()


def _flat(value: Any) -> list[Any]:
    return [cell for part in value for cell in _flat(part)] if isinstance(value, list) else [value]


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
