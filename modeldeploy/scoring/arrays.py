"""Columns of a table to the arrays that a model takes, and its answers back to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.packaging.containers import side_by_side
from modeldeploy.scoring.layout import Output, arrow_type
from modeldeploy.values.model import DType, Field

if TYPE_CHECKING:
    import pyarrow as pa


_FLOATS = (DType.FLOAT32, DType.FLOAT64)


def defects(field: Field, column: pa.ChunkedArray, name: str, *, vector: bool) -> dict[int, str]:
    """Find the rows whose value the model cannot take: null, NaN, infinite, or a vector of another length."""
    from pyarrow import types

    needed = not field.nullable or (field.dtype is not DType.STRING and not field.dtype.value.startswith("float"))
    gaps = bool(column.null_count) and (needed or vector)
    endless = not field.nullable and types.is_floating(column.type) and not _all_finite(values(column))
    found: dict[int, str] = {}
    if not (gaps or endless or vector):
        return found
    # Not before: the first part would wait for the import.
    import pyarrow.compute as pc

    if gaps:
        found.update(
            dict.fromkeys(_where(pc.is_null(column)), f"column {name!r} is null, which the model does not take")
        )
    if endless:
        what = f"column {name!r} is NaN or infinite, which the model does not take"
        found.update(dict.fromkeys(_where(pc.invert(pc.is_finite(column))), what))
    if vector and field.shape[0] is not None:
        lengths = pc.fill_null(pc.list_value_length(column), field.shape[0])
        for row in _where(pc.not_equal(lengths, field.shape[0])):
            found[row] = f"column {name!r} holds {lengths[row].as_py()} values, expected {field.shape[0]}"
    return found


def _all_finite(values: NDArray[Any]) -> bool:
    """Whether none is NaN or infinite; their sum says so in half the time, unless it overflows."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _where(mask: pa.ChunkedArray) -> list[int]:
    import pyarrow.compute as pc

    places: list[int] = pc.indices_nonzero(mask).to_pylist()
    return places


def to_array(field: Field, columns: list[pa.ChunkedArray]) -> Any:
    """Give the model's input for columns without defects, ready for the signature's check."""
    if len(columns) > 1:
        return _matrix(field, [_plain(column) for column in columns])
    (column,) = columns
    return _vectors(field, column) if field.shape else _plain(column)


def sound_matrix(field: Field, columns: list[pa.ChunkedArray]) -> NDArray[Any] | None:
    """Give the input of a model that takes floats side by side, if one look at all of them shows none that it does not take.

    None where there may be one, or where the columns are other than floats: then each column is looked at, see ``defects``.
    """
    from pyarrow import types

    dtype = np.dtype(field.dtype.value) if field.dtype in _FLOATS else None
    if (
        dtype is None
        or len(columns) == 1
        or not all(types.is_floating(each.type) and not each.null_count for each in columns)
    ):
        return None
    # Overflow shows as infinite.
    with np.errstate(over="ignore"):
        matrix = side_by_side([values(column) for column in columns], dtype)
    return matrix if _all_finite(matrix) else None


def _matrix(field: Field, columns: list[NDArray[Any]]) -> NDArray[Any]:
    """Narrow floats on the way; where one of them is lost by that, the signature's check gets them as they are and says which."""
    if field.dtype is DType.FLOAT32 and all(column.dtype == np.float64 for column in columns):
        with np.errstate(over="ignore"):
            narrow = side_by_side(columns, np.dtype(np.float32))
        if _all_finite(narrow):
            return narrow
    return side_by_side(columns)


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return values(column)


def values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Give numbers as they lie in memory, NaN for null: pyarrow's own way imports pandas, which takes longer than a million rows."""
    import pyarrow as pa
    from pyarrow import types

    tests = {"f": types.is_floating, "i": types.is_signed_integer, "u": types.is_unsigned_integer}
    letter = next((letter for letter, test in tests.items() if test(column.type)), None)
    if letter is None:
        array: NDArray[Any] = column.to_numpy()
        return array
    if column.null_count:
        import pyarrow.compute as pc

        kind = column.type if letter == "f" else pa.float64()
        return values(pc.fill_null(column.cast(kind, safe=False), numbers(np.array([np.nan]))[0].cast(kind)))
    dtype = np.dtype(f"{letter}{column.type.bit_width // 8}")
    found = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    return found[0] if len(found) == 1 else np.concatenate([np.empty(0, dtype), *found])


def _vectors(field: Field, column: pa.ChunkedArray) -> Any:
    size = field.shape[0]
    if len(field.shape) > 1 or size is None or field.dtype is DType.STRING:
        return column.to_pylist()
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, size) if len(flat) else np.empty((0, size), dtype=field.dtype.value)


def missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the rows of an answer that hold NaN or nothing."""
    if array.dtype.kind == "f":
        lost = np.isnan(array)
    elif array.dtype.kind == "O":
        lost = np.frompyfunc(lambda value: value is None or value != value, 1, 1)(array).astype(bool)  # noqa: PLR0124 - NaN
    else:
        return np.zeros(len(array), dtype=bool)
    rows: NDArray[np.bool_] = lost.reshape(len(array), -1).any(axis=1) if len(array) else np.zeros(0, dtype=bool)
    return rows


def to_column(output: Output, array: NDArray[Any]) -> pa.Array:
    """Give a column of predictions of the type that the signature promises."""
    import pyarrow as pa

    if output.place is not None:
        array = array[:, output.place]
    kind = arrow_type(output.field, output.place)
    if array.ndim == 1:
        return _cast(_flat(array), kind) if array.dtype.kind != "O" else pa.array(array, kind)
    if None in output.field.shape or array.dtype.kind == "O":
        return pa.array(array.tolist(), kind)
    flat = _flat(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return _cast(flat, kind)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)


def _flat(array: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return numbers(array) if array.dtype.kind in "biuf" else pa.array(array, from_pandas=False)


def numbers(array: NDArray[Any]) -> pa.Array:
    """Give numbers or flags as a column, without pandas as ``values`` does."""
    import pyarrow as pa

    if array.dtype.kind == "b":
        bits = pa.py_buffer(np.packbits(array, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(array), [None, bits])
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)])
