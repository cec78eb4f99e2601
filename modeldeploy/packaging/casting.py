"""One column to exactly the dtype and shape of its field, without loss, or an error that names the column and the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import InvalidRequestError
from modeldeploy.values.model import DType, Field

_KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float", "U": "string", "O": "object"}
_SHOWN = 60


def cast(field: Field, values: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """Give ``values`` (rows first) as the array that ``field`` asks for."""
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        _refuse(field, f"is the single {type(values).__name__} {values!r:.60}, not a list or an array of its rows")
    if not isinstance(values, np.ndarray) and not len(values):
        return empty(field)
    if field.dtype is DType.STRING:
        return _strings(field, values)
    array = values if isinstance(values, np.ndarray) else _as_array(field, values)
    if array.dtype.kind in "mMcV":
        # Dates would read as whole numbers of nanoseconds.
        _refuse(
            field, f"holds {array.dtype.name} values, expected {field.dtype.value}", hint="turn them into numbers first"
        )
    if array.dtype.kind not in "biuf":
        array = _as_array(field, array.tolist())
    _check_shape(field, array)
    array = _convert(field, array)
    if array.dtype.kind == "f" and not field.nullable and not np.isfinite(array).all():
        _refuse_not_finite(field, array)
    return array


def empty(field: Field) -> NDArray[Any]:
    """Give the array of no rows; an axis of any length has none either."""
    shape = (0, *(size or 0 for size in field.shape))
    return np.empty(shape, dtype=object if field.dtype is DType.STRING else field.dtype.value)


def _as_array(field: Field, values: Sequence[Any]) -> NDArray[Any]:
    """Make numbers of Python values; a None is a NaN where the field takes one."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        _refuse_ragged(field, values, error)
    if array.dtype.kind == "O":
        array = _fill_nulls(field, array)
    if array.dtype.kind not in "biuf":
        _refuse_value(field, values)
    if array.dtype.kind in "if" and field.dtype is not DType.BOOL:
        _refuse_hidden_bool(field, values)
    if array.dtype.kind == "f":
        _refuse_rounded(field, values, array)
    return array


def _fill_nulls(field: Field, array: NDArray[Any]) -> NDArray[Any]:
    nulls = np.frompyfunc(lambda value: value is None or _is_na(value), 1, 1)(array).astype(bool)
    if not nulls.any():
        return _numbers_of(field, array)
    if not field.nullable or np.dtype(field.dtype.value).kind != "f":
        _refuse(field, f"holds a null in row {_first_row(nulls)}, which is not allowed there")
    filled = array.copy()
    filled[nulls] = np.nan
    return _numbers_of(field, filled)


def _numbers_of(field: Field, array: NDArray[Any]) -> NDArray[Any]:
    """Read an object array again by its Python values; numpy finds their common type."""
    try:
        return np.asarray(array.tolist())
    except (ValueError, OverflowError) as error:
        _refuse_ragged(field, array.tolist(), error)


def _is_na(value: object) -> bool:
    return type(value).__name__ in {"NAType", "NaTType"}


def _convert(field: Field, array: NDArray[Any]) -> NDArray[Any]:
    wanted = np.dtype(field.dtype.value)
    if array.dtype == wanted:
        return array
    if array.size == 0:
        return array.astype(wanted)
    have, want = array.dtype.kind, wanted.kind
    if (have == "b") != (want == "b") or (have == "f" and want in "iu"):
        _refuse(field, f"holds {_KINDS[have]} values, expected {field.dtype.value}", hint=_cast_hint(have, want))
    if want == "f" and have == "f":
        return _to_float(field, array, wanted)
    return _to_exact(field, array, wanted)


def _to_float(field: Field, array: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    """Round to the nearest value of a narrower float, as decimal text would be; only an overflow is a loss."""
    with np.errstate(over="ignore"):
        narrow = array.astype(wanted)
    if np.isfinite(narrow).all():
        return narrow
    lost = np.isinf(narrow) & np.isfinite(array)
    if lost.any():
        _refuse(field, f"holds {_first(array, lost)} in row {_first_row(lost)}, too large for {field.dtype.value}")
    return narrow


def _to_exact(field: Field, array: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore", over="ignore"):
        cast_array = array.astype(wanted)
        lost = (cast_array.astype(array.dtype) != array) | ((cast_array < 0) != (array < 0))
    if lost.any():
        _refuse(
            field,
            f"holds {_first(array, lost)} in row {_first_row(lost)}, which {field.dtype.value} cannot hold exactly",
        )
    return cast_array


def _strings(field: Field, values: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    array = values if isinstance(values, np.ndarray) else _object_array(field, values)
    if array.dtype.kind in "UT":
        array = array.astype(object)
    if array.dtype.kind != "O":
        _refuse_value(field, array.tolist())
    _check_shape(field, array)
    if set(map(type, array.ravel().tolist())) <= {str}:
        return array
    return _with_nulls(field, array)


def _with_nulls(field: Field, array: NDArray[Any]) -> NDArray[Any]:
    flat = [_text(value) for value in array.ravel().tolist()]
    for at, value in enumerate(flat):
        if value is None and not field.nullable:
            _refuse(field, f"holds a null in row {_row(at, array)}, which is not allowed there")
        if value is not None and not isinstance(value, str):
            _refuse_one(field, value, _row(at, array))
    return _objects(flat).reshape(array.shape)


def _text(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    return None if (isinstance(value, float) and value != value) or _is_na(value) else value  # noqa: PLR0124 - NaN


def _object_array(field: Field, values: Sequence[Any]) -> NDArray[Any]:
    if not field.shape:
        return _objects(list(values))
    try:
        return np.array(values, dtype=object)
    except ValueError as error:
        _refuse_ragged(field, values, error)


def _objects(values: list[Any]) -> NDArray[Any]:
    # np.array would read a nested list as another axis.
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _check_shape(field: Field, array: NDArray[Any]) -> None:
    shape = array.shape[1:]
    if (
        array.ndim
        and len(shape) == len(field.shape)
        and all(want in {None, have} for want, have in zip(field.shape, shape, strict=True))
    ):
        return
    wanted = ", ".join(["rows", *("any" if size is None else str(size) for size in field.shape)])
    _refuse(field, f"has shape {array.shape}, expected ({wanted})", hint="the first axis is the rows")


def _row(at: int, array: NDArray[Any]) -> int:
    return at * len(array) // array.size


def _first_row(bad: NDArray[Any]) -> int:
    return int(np.argwhere(bad)[0][0])


def _first(array: NDArray[Any], bad: NDArray[Any]) -> str:
    return repr(array[bad][0].item())


def _cast_hint(have: str, want: str) -> str:
    if have == "f" and want in "iu":
        return "send whole numbers, or package the model with an example whose column is float"
    return "send the type that the example had; nothing is converted silently"


def _refuse(field: Field, what: str, *, hint: str | None = None) -> NoReturn:
    message = f"column {field.name!r} {what}"
    raise InvalidRequestError(message, field=field.name, hint=hint)


def _refuse_one(field: Field, value: object, row: int) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    _refuse(field, f"holds {shown} ({type(value).__name__}) in row {row}, expected {field.dtype.value}")


def _refuse_not_finite(field: Field, array: NDArray[Any]) -> NoReturn:
    bad = ~np.isfinite(array)
    what = "NaN" if np.isnan(array[bad][0]) else "an infinity"
    hint = "fill it, or package the model with an example that holds one (or nullable=[...])"
    _refuse(field, f"holds {what} in row {_first_row(bad)}, which is not allowed there", hint=hint)


def _refuse_value(field: Field, values: Sequence[Any]) -> NoReturn:
    """Find the first value that is not what the field holds and name it."""
    good = str if field.dtype is DType.STRING else int | float | np.number
    for row, value in enumerate(values):
        for item in np.ravel(np.array(value, dtype=object)).tolist() if field.shape else [value]:
            if not isinstance(item, good) or isinstance(item, bool):
                _refuse_one(field, item, row)
    _refuse(field, f"cannot be read as {field.dtype.value}", hint="a number is too large, or the types are mixed")


def _refuse_hidden_bool(field: Field, values: Sequence[Any]) -> None:
    """Refuse a flag among numbers, which numpy would turn into 0 or 1."""
    if field.shape or not {bool, np.bool_} & set(map(type, values)):
        return
    row = next(row for row, value in enumerate(values) if isinstance(value, bool | np.bool_))
    _refuse_one(field, bool(values[row]), row)


def _refuse_rounded(field: Field, values: Sequence[Any], array: NDArray[Any]) -> None:
    """Refuse a whole number among floats, which numpy would round to the nearest of them."""
    wanted = np.dtype(field.dtype.value)
    kind = (wanted if wanted.kind == "f" else array.dtype).type
    # Up to here every whole number is a float; the first that is not is rounded to this very limit.
    if not (np.abs(array) >= 1 << (np.finfo(kind).nmant + 1)).any():
        return
    with np.errstate(over="ignore"):
        for row, value in enumerate(values):
            for item in np.ravel(np.array(value, dtype=object)).tolist() if field.shape else [value]:
                # Python compares a float with a whole number exactly; numpy does not.
                if isinstance(item, int) and float(kind(item)) != item:
                    _refuse(field, f"holds {item} in row {row}, which {field.dtype.value} cannot hold exactly")


def _refuse_ragged(field: Field, values: Sequence[Any], error: Exception) -> NoReturn:
    lengths = [len(value) if isinstance(value, list | tuple | np.ndarray) else None for value in values]
    row = next((at for at, length in enumerate(lengths) if length != lengths[0]), 0)
    what = f"is ragged: row {row} does not have the shape of row 0"
    message = f"column {field.name!r} {what}"
    raise InvalidRequestError(message, field=field.name, hint="every row needs the same shape") from error
