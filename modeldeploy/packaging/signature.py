"""Signatures: inferred from an example, and checked against every request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConfigurationError, InvalidRequestError
from modeldeploy.packaging import tables
from modeldeploy.packaging.casting import cast
from modeldeploy.values.model import DType, Field, Signature

INPUT = "input"
"""The one field of a model that takes an array."""

_SHOWN = 5


def infer(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], *, nullable: Collection[str] = ()
) -> Signature:
    """Make the signature of these example columns; ConfigurationError names one whose type no wire format carries.

    A column takes NaN or null when the example holds one, or when ``nullable`` names it.
    """
    _refuse_nullable(inputs, nullable)
    return Signature(
        inputs=tuple(_field(name, array, nullable=name in nullable) for name, array in inputs.items()),
        outputs=tuple(_field(name, array, nullable=False) for name, array in outputs.items()),
    )


def check(signature: Signature, columns: Mapping[str, NDArray[Any] | Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """Give ``columns`` exactly as the signature asks for them; InvalidRequestError names the column that does not fit.

    Casts only without loss: whole numbers become floats when that is exact and floats are rounded to a narrower float; a float never
    becomes an integer, text never a number.
    """
    if len(columns) != len(signature.inputs) or not all(field.name in columns for field in signature.inputs):
        _refuse_names(signature, columns)
    checked = {field.name: cast(field, columns[field.name]) for field in signature.inputs}
    if len({len(array) for array in checked.values()}) > 1:
        _refuse_lengths(checked)
    return checked


def to_columns(data: object, signature: Signature) -> dict[str, NDArray[Any]]:
    """Turn what a user holds (numpy, pandas, polars, pyarrow, lists, dicts) into checked columns.

    Tables go by column name; an array of as many columns as the signature has goes by position.
    """
    table = tables.read(data)
    if table.array is not None:
        return check(signature, _of_array(table.array, signature))
    if len(signature.inputs) == 1 and signature.inputs[0].name not in table.columns:
        return check(signature, {signature.inputs[0].name: _stack(table, signature.inputs[0])})
    return check(signature, table.columns)


def _of_array(array: NDArray[Any], signature: Signature) -> dict[str, NDArray[Any]]:
    fields = signature.inputs
    if len(fields) == 1 and (fields[0].shape or array.ndim == 1):
        return {fields[0].name: array}
    if array.ndim != 2 or array.shape[1] != len(fields):  # noqa: PLR2004 - rows and columns
        message = f"an array of shape {array.shape} was given where (rows, {len(fields)}) is expected"
        raise InvalidRequestError(message, hint=f"its columns are {_some([field.name for field in fields])}")
    return {field.name: array[:, at] for at, field in enumerate(fields)}


def _stack(table: tables.Table, field: Field) -> tables.Values:
    """Put the columns of a table side by side for a model that takes one array; one column is the list that a model of single values takes."""
    if not field.shape and field.name == INPUT and len(table.columns) == 1:
        return next(iter(table.columns.values()))
    if len(field.shape) != 1:
        message = f"a table was given where the array {field.name!r} of shape (rows, {field.shape}) is expected"
        raise InvalidRequestError(message, field=field.name, hint="pass a numpy array of that shape")
    columns = [np.asarray(column) for column in table.columns.values()]
    if field.shape[0] not in {None, len(columns)}:
        message = f"a table of {len(columns)} columns was given where {field.shape[0]} are expected"
        raise InvalidRequestError(message, field=field.name, hint=f"it has {_some(list(table.columns))}")
    if len({len(column) for column in columns}) > 1:
        _refuse_lengths(dict(zip(table.columns, columns, strict=True)))
    return np.stack(columns, axis=1)


def _field(name: str, array: NDArray[Any], *, nullable: bool) -> Field:
    dtype = _dtype(name, array)
    return Field(name=name, dtype=dtype, shape=array.shape[1:], nullable=nullable or has_gaps(array))


def _refuse_nullable(inputs: Mapping[str, NDArray[Any]], nullable: Collection[str]) -> None:
    """Refuse to let a column take NaN or null that its type cannot hold."""
    unknown = sorted(set(nullable) - set(inputs))
    if unknown:
        message = f"nullable names {unknown}, which the example does not have"
        raise ConfigurationError(message, hint=f"its columns are {_some(list(inputs))}")
    for name in nullable:
        if inputs[name].dtype.kind not in "fO":
            message = f"column {name!r} holds {inputs[name].dtype.name}, which has no NaN, and cannot be nullable"
            raise ConfigurationError(
                message, hint="make it float in the example and in the table the model was fitted with"
            )


def has_gaps(array: NDArray[Any]) -> bool:
    """Whether a column holds NaN, an infinity or a null."""
    if array.dtype.kind == "f":
        return not bool(np.isfinite(array).all())
    return array.dtype.kind == "O" and any(value is None for value in array.ravel().tolist())


def _dtype(name: str, array: NDArray[Any]) -> DType:
    if array.dtype == object:
        kinds = sorted({type(value).__name__ for value in array.ravel().tolist()} - {"str", "NoneType"})
        if not kinds:
            return DType.STRING
        message = f"column {name!r} of the example holds {' and '.join(kinds)} values beside text or nulls"
        raise ConfigurationError(message, hint="make it all numbers, all flags or all text before it reaches the model")
    try:
        return DType(array.dtype.name)
    except ValueError as error:
        message = f"column {name!r} of the example has type {array.dtype.name}, which cannot be sent to a model server"
        raise ConfigurationError(message, hint=_remedy(array.dtype)) from error


def _remedy(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "mM":
        return "turn dates into numbers first, such as days since a start, or into text"
    return "use bool, int8-64, uint8-64, float16-64 or text"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{names[:_SHOWN]}{more}"


def _refuse_names(signature: Signature, columns: Mapping[str, object]) -> None:
    expected = [field.name for field in signature.inputs]
    known = set(expected)
    missing = [name for name in expected if name not in columns]
    extra = [name for name in columns if name not in known]
    parts = [
        f"column {missing[0]!r} is missing" if len(missing) == 1 else f"columns {_some(missing)} are missing"
    ] * bool(missing)
    parts += [
        f"column {extra[0]!r} is not known" if len(extra) == 1 else f"columns {_some(extra)} are not known"
    ] * bool(extra)
    message = " and ".join(parts)
    raise InvalidRequestError(message, field=(missing + extra)[0], hint=f"the model takes {_some(expected)}")


def _refuse_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    names = list(columns)
    first, rows = names[0], len(columns[names[0]])
    other = next(name for name in names if len(columns[name]) != rows)
    message = f"column {other!r} has {len(columns[other])} rows where {first!r} has {rows}"
    raise InvalidRequestError(message, field=other, hint="every column needs the same number of rows")
