"""What a user holds, read as columns or as one array, without importing a library that is not loaded already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging.manifest import Column

Values: TypeAlias = "NDArray[Any] | list[Any]"

_ACCEPTED = "pass a numpy array, a pandas or polars DataFrame, a pyarrow Table, a list of rows or of dicts, or a dict of columns"


@attrs.frozen(eq=False)
class Table:
    """Columns by name, or one array; ``kind`` is the container they came in."""

    kind: str
    columns: Mapping[str, Values] = attrs.field(factory=dict[str, Values])
    array: NDArray[Any] | None = None
    looks: tuple[Column, ...] = ()
    """How the columns look in their own library."""


def read(data: object) -> Table:  # noqa: PLR0911 - one return for each kind of table
    """Read a table or an array; InvalidRequestError says what is accepted."""
    root, kind = type(data).__module__.partition(".")[0], type(data).__name__
    if root == "pandas":
        return _pandas_series(data) if kind == "Series" else _pandas(data)
    if root == "polars":
        return _polars(data)
    if root == "pyarrow":
        return _arrow(data)
    if isinstance(data, Mapping):
        return _mapping(data)
    if isinstance(data, np.ndarray):
        return _array(data)
    if hasattr(data, "toarray"):
        return _array(np.asarray(data.toarray()))
    if isinstance(data, list | tuple):
        return _sequence(data)
    if hasattr(data, "__array__"):
        return _array(np.asarray(data))
    message = f"{type(data).__module__}.{kind} is not a table or an array"
    raise InvalidRequestError(message, hint=_ACCEPTED)


def _pandas(data: Any) -> Table:
    if type(data).__name__ != "DataFrame":
        message = f"pandas.{type(data).__name__} is not a table"
        raise InvalidRequestError(message, hint=_ACCEPTED)
    labels = [_label(label) for label in data.columns]
    names = [str(label) for label in labels]
    _refuse_duplicates(names)
    types = data.dtypes
    if len(set(types)) == 1 and isinstance(types.iloc[0], np.dtype) and types.iloc[0].kind in "biuf":
        # One block: a view of each column costs a tenth of asking the frame for each.
        block = data.to_numpy()
        columns: dict[str, Values] = {name: block[:, at] for at, name in enumerate(names)}
        shared = str(types.iloc[0])
        looks = tuple(Column(name=name, label=label, dtype=shared) for name, label in zip(names, labels, strict=True))
        return Table("pandas", columns, looks=looks)
    series = [data.iloc[:, at] for at in range(len(names))]
    columns = {name: _values(each) for name, each in zip(names, series, strict=True)}
    looks = tuple(_look(name, label, each) for name, label, each in zip(names, labels, series, strict=True))
    return Table("pandas", columns, looks=looks)


def _label(label: Any) -> Any:
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, str) or (isinstance(label, int) and not isinstance(label, bool)):
        return label
    message = f"column label {label!r} is a {type(label).__name__}"
    raise InvalidRequestError(message, hint="use text or whole numbers as column names; flatten a MultiIndex first")


def _refuse_duplicates(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        message = f"columns {twice[:5]} occur more than once"
        raise InvalidRequestError(message, field=twice[0], hint="give every column its own name")


def _look(name: str, label: Any, series: Any) -> Column:
    if str(series.dtype) != "category":
        return Column(name=name, label=label, dtype=str(series.dtype))
    categories = tuple(series.cat.categories.tolist())
    return Column(name=name, label=label, dtype="category", categories=categories, ordered=bool(series.cat.ordered))


def _values(series: Any) -> Values:
    """Give a column's values: numbers as they are, text and nulls as objects."""
    if isinstance(series.dtype, np.dtype):
        return _lists_inside(series.to_numpy())
    if str(series.dtype) == "category":
        return _objects_or_numbers(series.astype(series.cat.categories.dtype if not series.hasnans else object))
    return _objects_or_numbers(series)


def _objects_or_numbers(series: Any) -> Values:
    """Read a column of pandas' own types; numbers with nulls become floats with NaN."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        numpy_dtype = getattr(series.dtype, "numpy_dtype", series.dtype)
        return np.asarray(
            series.to_numpy(dtype=np.float64, na_value=np.nan) if series.hasnans else series.to_numpy(dtype=numpy_dtype)
        )
    if pd.api.types.is_bool_dtype(series.dtype) and not series.hasnans:
        return np.asarray(series.to_numpy(dtype=bool))
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return np.asarray(series.to_numpy(dtype="datetime64[ns]"))
    return tidy(series.astype(object).to_numpy())


def tidy(array: NDArray[Any]) -> NDArray[Any]:
    """Give an object column as text with None for null, or as the numbers it holds; left alone when it is neither."""
    values = array.tolist()
    kinds = set(map(type, values))
    if kinds <= {str}:
        return array
    cleaned = [None if _is_null(value) else value for value in values]
    if all(isinstance(value, str | None) for value in cleaned):
        return _objects(cleaned)
    if kinds <= {int, float, type(None)} and (float in kinds or type(None) in kinds or kinds == {int}):
        return np.asarray([np.nan if value is None else value for value in cleaned])
    return np.asarray(values) if kinds == {bool} else array


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"  # noqa: PLR0124 - NaN


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _lists_inside(array: NDArray[Any]) -> NDArray[Any]:
    return tidy(array) if array.dtype == object else array


def _pandas_series(series: Any) -> Table:
    """Read a Series: one row when its labels are names, else one column."""
    if all(isinstance(label, str) for label in series.index):
        return Table("pandas", {str(label): [value] for label, value in series.items()})
    if series.name is None:
        return Table("array", array=np.asarray(_values(series)))
    return Table("pandas", {str(series.name): _values(series)}, looks=(_look(str(series.name), series.name, series),))


def _polars(data: Any) -> Table:
    if type(data).__name__ == "LazyFrame":
        data = data.collect()
    if type(data).__name__ == "Series":
        data = data.to_frame()
    columns = {name: _polars_values(data[name]) for name in data.columns}
    looks = tuple(Column(name=name, label=name, dtype=str(data[name].dtype)) for name in data.columns)
    return Table("polars", columns, looks=looks)


def _polars_values(series: Any) -> Values:
    name = str(series.dtype)
    if name.startswith(("String", "Categorical", "Enum", "Object")):
        return _objects(series.to_list())
    array = np.asarray(series.to_numpy())
    return tidy(array) if array.dtype == object else array


def _arrow(data: Any) -> Table:
    if not hasattr(data, "column_names") and not hasattr(data, "schema"):
        return Table("array", array=np.asarray(data.to_numpy(zero_copy_only=False)))
    names = list(data.schema.names)
    _refuse_duplicates(names)
    columns = {name: _arrow_values(data.column(at)) for at, name in enumerate(names)}
    looks = tuple(Column(name=name, label=name, dtype=str(data.schema.field(at).type)) for at, name in enumerate(names))
    return Table("arrow", columns, looks=looks)


def _arrow_values(column: Any) -> Values:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return _objects(column.to_pylist())
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return list(column.to_pylist())
    array = np.asarray(
        column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    )
    return tidy(array) if array.dtype == object else array


def _mapping(data: Mapping[Any, Any]) -> Table:
    """Read a dict of columns, or one row when every value is a scalar."""
    columns: dict[str, Any] = {str(_label(name)): value for name, value in data.items()}
    if columns and not any(_is_column(value) for value in columns.values()):
        columns = {name: [value] for name, value in columns.items()}
    return Table("columns", {name: _column(name, value) for name, value in columns.items()})


def _is_column(value: object) -> bool:
    return isinstance(value, list | tuple | range) or (hasattr(value, "__len__") and hasattr(value, "__array__"))


def _column(name: str, value: Any) -> Values:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list):
        return value
    if type(value).__module__.startswith("pandas") and hasattr(value, "dtype"):
        return _values(value)
    if isinstance(value, tuple | range):
        return list(value)
    if hasattr(value, "__array__"):
        return np.asarray(value)
    message = f"column {name!r} is a {type(value).__name__}, not a list or an array"
    raise InvalidRequestError(message, field=name, hint="every column of a dict needs a list or an array of its rows")


def _array(array: NDArray[Any]) -> Table:
    if array.dtype.names:
        return Table("columns", {name: array[name] for name in array.dtype.names})
    if array.ndim == 0:
        message = f"{array.item()!r} is a single value"
        raise InvalidRequestError(message, hint=_ACCEPTED)
    return Table("array", array=array)


def _sequence(rows: Sequence[Any]) -> Table:
    if not rows:
        message = "an empty list has no columns"
        raise InvalidRequestError(message, hint=_ACCEPTED)
    if isinstance(rows[0], Mapping):
        return Table("records", _records(rows))
    if all(isinstance(row, str) for row in rows):
        return Table("array", array=_objects(rows))
    lengths = [len(row) if isinstance(row, list | tuple | np.ndarray) else None for row in rows]
    if len(set(lengths)) > 1:
        row = next(at for at, length in enumerate(lengths) if length != lengths[0])
        message = f"row {row} has {lengths[row] or 'no'} values where row 0 has {lengths[0] or 'none'}"
        raise InvalidRequestError(message, hint="every row needs the same number of values")
    return _rows(rows)


def _rows(rows: Sequence[Any]) -> Table:
    try:
        array = np.asarray(rows)
        if array.dtype.kind not in "biuf":
            # Rows of mixed types keep each value's own type.
            array = np.array([list(row) if isinstance(row, tuple) else row for row in rows], dtype=object)
    except (ValueError, OverflowError) as error:
        message = f"the rows do not make an array: {error}"
        raise InvalidRequestError(message, hint="every row needs the same shape") from error
    return _array(array)


def _records(rows: Sequence[Any]) -> dict[str, Values]:
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            message = f"row {at} is a {type(row).__name__} where row 0 is a dict"
            raise InvalidRequestError(message, hint="give every row as a dict of column to value")
        if len(row) != len(rows[0]) or row.keys() != rows[0].keys():
            odd = sorted(str(name) for name in row.keys() ^ rows[0].keys())
            message = f"row {at} does not have the columns of row 0: they differ in {odd[:5]}"
            raise InvalidRequestError(message, field=odd[0], hint="give every row the same columns, None for a null")
    return {str(name): [row[name] for row in rows] for name in rows[0]}
