"""What a caller holds, checked against the signature: a block where all columns are numbers of one type, else columns.

Reading thirty columns one by one costs more than most models. What is not plainly right as a block is left to ``to_columns``, which finds
the words for what is wrong; the two never disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging import tables
from modeldeploy.packaging.blocks import Block, Columns
from modeldeploy.packaging.casting import cast
from modeldeploy.packaging.signature import to_columns
from modeldeploy.serving import matrix
from modeldeploy.values.model import DType, Field, Signature

Labelled: TypeAlias = "tuple[list[str], NDArray[Any]]"
"""A table of one type: its labels, and its columns side by side."""

TALL = 1 << 12
"""From so many rows on columns that lie apart are not put side by side before they are sent: that would copy all of them at once."""

_MATRIX = 2
_SAMPLE = 1_000
_LENGTH = 4


def read(data: object, signature: Signature) -> Columns:
    """Check what a user holds (numpy, pandas, polars, pyarrow, lists, dicts); InvalidRequestError names the column that does not fit.

    Nothing is copied that has the right types already.
    """
    fields = signature.inputs
    if alike(fields):
        found = _as_matrix(data, signature)
        names = tuple(field.name for field in fields)
        return to_columns(data, signature) if found is None else Block(names, found, whole=False)
    found = _as_array(data, fields[0]) if len(fields) == 1 and len(fields[0].shape) == 1 else None
    return to_columns(data, signature) if found is None else {fields[0].name: found}


def part(columns: Columns, rows: range) -> Columns:
    """Give some of the rows, without copying them."""
    if isinstance(columns, Block):
        return Block(columns.names, columns.matrix[rows.start : rows.stop], whole=columns.whole)
    return {name: array[rows.start : rows.stop] for name, array in columns.items()}


def row_bytes(columns: Columns) -> int:
    """Estimate what one row takes on the wire; texts by those of some rows."""
    arrays = [columns.matrix] if isinstance(columns, Block) else list(columns.values())
    return max(1, sum(_row_bytes(array) for array in arrays))


def _row_bytes(array: NDArray[Any]) -> int:
    sample = array[:: len(array) // _SAMPLE + 1]
    if array.dtype != object:
        return sample.nbytes // max(1, len(sample))
    texts = [_LENGTH + len((text or "").encode()) for text in sample.ravel().tolist()]
    return sum(texts) // max(1, len(sample))


def alike(fields: Sequence[Field]) -> bool:
    """Whether a matrix can hold all columns: there are several, of numbers of one type."""
    first = fields[0].dtype
    return (
        len(fields) >= _MATRIX
        and first is not DType.STRING
        and all(field.dtype is first and not field.shape for field in fields)
    )


def _as_matrix(data: Any, signature: Signature) -> NDArray[Any] | None:
    names = [field.name for field in signature.inputs]
    found = _unchecked(data, names, signature)
    return None if found is None else _checked(found, signature.inputs)


def _unchecked(data: Any, names: list[str], signature: Signature) -> NDArray[Any] | None:
    if isinstance(data, np.ndarray):
        return data
    found = _labelled(data)
    if found is not None:
        return _ordered(*found, names)
    if not isinstance(data, list) or not data:
        return None
    if type(data[0]) is dict:
        return _of_records(data, names, signature)
    return tables.read(data).array


def _as_array(data: Any, field: Field) -> NDArray[Any] | None:
    """Take a table of one type as the array that a model asks for, its columns in their order."""
    found = _labelled(data)
    if found is None or field.name in found[0] or found[1].dtype.kind not in "biuf":
        return None
    try:
        return cast(field, found[1])
    except InvalidRequestError:
        return None


def _labelled(data: Any) -> Labelled | None:
    """Give a table of one type as its labels and the matrix of its columns; None when that is not to be had cheaply."""
    read = _TABLES.get((type(data).__module__.partition(".")[0], type(data).__name__))
    return read(data) if read is not None else None


def _of_pandas(frame: Any) -> Labelled | None:
    labels, types = frame.columns.tolist(), set(frame.dtypes)
    if len(types) != 1 or not isinstance(types.pop(), np.dtype) or not {str, int} >= set(map(type, labels)):
        return None
    return [str(label) for label in labels], frame.to_numpy()


def _of_polars(frame: Any) -> Labelled | None:
    types = set(frame.dtypes)
    if len(types) != 1 or frame.height >= TALL:
        return None
    found = np.asarray(frame.to_numpy())
    # Nulls turn whole numbers into floats and flags into objects.
    return (list(frame.columns), found) if found.dtype.name == str(types.pop()).lower() else None


def _of_arrow(table: Any) -> Labelled | None:
    types = set(table.schema.types)
    if len(types) != 1 or table.num_rows >= TALL or any(column.null_count for column in table.columns):
        return None
    if str(types.pop()) not in _ARROW_NUMBERS:
        return None
    return list(table.schema.names), np.stack([np.asarray(column) for column in table.columns], axis=1)


_ARROW_NUMBERS = frozenset(
    {"float", "double", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)
_TABLES: Mapping[tuple[str, str], Callable[[Any], Labelled | None]] = {
    ("pandas", "DataFrame"): _of_pandas,
    ("polars", "DataFrame"): _of_polars,
    ("pyarrow", "Table"): _of_arrow,
    ("pyarrow", "RecordBatch"): _of_arrow,
}


def _ordered(labels: list[str], found: NDArray[Any], names: list[str]) -> NDArray[Any] | None:
    """Put columns that came in another order into that of the signature."""
    if labels == names:
        return found
    if sorted(labels) != sorted(names):
        return None
    at = {label: number for number, label in enumerate(labels)}
    return found[:, [at[name] for name in names]]


def _of_records(rows: list[Any], names: list[str], signature: Signature) -> NDArray[Any] | None:
    if set(map(type, rows)) != {dict} or set(map(len, rows)) != {len(names)}:
        return None
    try:
        found = matrix.of_rows([[row[name] for name in names] for row in rows], signature)
    except KeyError:
        return None
    return None if found is None else found.matrix


def _checked(found: NDArray[Any], fields: Sequence[Field]) -> NDArray[Any] | None:
    if found.ndim != _MATRIX or found.shape[1] != len(fields) or found.dtype.kind not in "biuf":
        return None
    try:
        exact = cast(Field("table", fields[0].dtype, (len(fields),), nullable=True), found)
    except InvalidRequestError:
        return None
    if exact.dtype.kind == "f" and not np.isfinite(exact).all() and not _may_lack(exact, fields):
        return None
    return exact


def _may_lack(found: NDArray[Any], fields: Sequence[Field]) -> bool:
    finite = np.isfinite(found).all(axis=0)
    return all(whole or field.nullable for whole, field in zip(finite.tolist(), fields, strict=True))
