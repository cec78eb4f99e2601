"""Columns back into what the model was fitted with: an array, a data frame, records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConfigurationError, InvalidRequestError
from modeldeploy.packaging.blocks import Block, Columns
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.manifest import Column

Build: TypeAlias = "Callable[[Columns], Any]"


def builder(container: str, looks: tuple[Column, ...], names: Sequence[str]) -> Build:
    """Give the function that turns checked columns into this container; what can be prepared once is prepared now.

    ``names`` is the order of the columns: that of the mapping that holds them says nothing.
    """
    makers: dict[str, Callable[[tuple[Column, ...]], Build]] = {
        "array": lambda _looks: _only,
        "matrix": lambda _looks: _matrix,
        "columns": lambda _looks: dict,
        "records": _records,
        "pandas": _pandas,
        "polars": _polars,
        "arrow": _arrow,
    }
    if container not in makers:
        message = f"container {container!r} is not known"
        raise ConfigurationError(
            message, hint="use the version of modeldeploy that packaged this model, or a newer one"
        )
    build, order = makers[container](looks), tuple(names)
    if build in {_only, _matrix} or (container == "pandas" and _alike(looks)):
        # These take a block whole.
        return lambda columns: build(
            columns if isinstance(columns, Block) and columns.names == order else _ordered(columns, order)
        )
    return lambda columns: build(_ordered(columns, order))


def _ordered(columns: Columns, names: Sequence[str]) -> Columns:
    return {name: columns[name] for name in names}


def _only(columns: Columns) -> NDArray[Any]:
    (array,) = columns.values()
    # A request's array is a view of its bytes; a model that writes into its input must find what it had in the notebook.
    return array if array.flags.writeable else array.copy()


def _matrix(columns: Columns) -> NDArray[Any]:
    if isinstance(columns, Block) and not columns.whole:
        return columns.matrix
    return side_by_side(list(columns.values()))


def side_by_side(columns: Sequence[NDArray[Any]], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Give the array whose columns these are, as ``np.stack(columns, axis=1)`` does in four times the time."""
    first = columns[0]
    array: NDArray[Any] = np.empty((len(first), len(columns), *first.shape[1:]), dtype or np.result_type(*columns))
    for at, column in enumerate(columns):
        array[:, at] = column
    return array


def _records(looks: tuple[Column, ...]) -> Build:
    labels = [look.label for look in looks]

    def build(columns: Columns) -> list[dict[Any, Any]]:
        rows = zip(*(columns[look.name].tolist() for look in looks), strict=True)
        return [dict(zip(labels, row, strict=True)) for row in rows]

    return build


def _pandas(looks: tuple[Column, ...]) -> Build:
    pd = need("pandas")
    index = pd.Index([look.label for look in looks])
    if _alike(looks):
        wanted = np.dtype(looks[0].dtype)
        return lambda columns: pd.DataFrame(_matrix(columns).astype(wanted, copy=False), columns=index, copy=False)

    def build(columns: Columns) -> Any:
        series = {at: _restore(pd, look, columns[look.name]) for at, look in enumerate(looks)}
        frame = pd.DataFrame(series)
        frame.columns = index
        return frame

    return build


def _alike(looks: tuple[Column, ...]) -> bool:
    """Whether all columns have one of numpy's own types of numbers."""
    try:
        return len({look.dtype for look in looks}) == 1 and np.dtype(looks[0].dtype).kind in "biuf"
    except TypeError:
        return False


def _restore(pd: Any, look: Column, values: NDArray[Any]) -> Any:
    if look.categories is not None:
        return _categorical(pd, look, values)
    if look.dtype in {"", "object"} or values.dtype.name == look.dtype:
        return values
    return pd.Series(values).astype(look.dtype)


def _categorical(pd: Any, look: Column, values: NDArray[Any]) -> Any:
    index = pd.Index(list(look.categories or ()))
    codes = index.get_indexer(values)
    unknown = (codes < 0) & ~pd.isna(values)
    if unknown.any():
        row = int(np.argmax(unknown))
        message = f"column {look.name!r} holds {values[row]!r} in row {row}, which is not one of its categories"
        raise InvalidRequestError(message, field=look.name, hint=f"known are {index[:10].tolist()}")
    return pd.Categorical.from_codes(codes, categories=index, ordered=look.ordered)


def _polars(looks: tuple[Column, ...]) -> Build:
    pl = need("polars")

    def build(columns: Columns) -> Any:
        return pl.DataFrame({look.name: _series(pl, columns[look.name]) for look in looks})

    return build


def _series(pl: Any, values: NDArray[Any]) -> Any:
    return (
        pl.Series(values.tolist(), dtype=pl.String)
        if values.dtype == object
        else pl.Series(np.ascontiguousarray(values))
    )


def _arrow(looks: tuple[Column, ...]) -> Build:
    pa = need("pyarrow")

    def build(columns: Columns) -> Any:
        return pa.table({look.name: _arrow_array(pa, columns[look.name]) for look in looks})

    return build


def _arrow_array(pa: Any, values: NDArray[Any]) -> Any:
    return pa.array(values.tolist(), type=pa.string()) if values.dtype == object else pa.array(values)
