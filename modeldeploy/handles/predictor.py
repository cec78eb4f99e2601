"""Predictions through an endpoint: what the user holds goes out as tensors and comes back as its natural kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.handles import chunks
from modeldeploy.handles.sticky import Route
from modeldeploy.packaging.blocks import Columns, count_rows
from modeldeploy.packaging.casting import empty
from modeldeploy.serving import caller, inputs
from modeldeploy.spi import Serving
from modeldeploy.values.model import Signature
from modeldeploy.values.serving import Payload

_REVISION = "modeldeploy-revision"


def predict(
    backend: Serving, endpoint: str, data: object, signature: Signature, *, route: Route, timeout: float
) -> Any:
    """Check ``data`` against the signature, send it, and give the answer in the kind it came in.

    InvalidRequestError, before anything is sent, names the column that does not fit.
    """
    rows = [dict(data)] if _is_one_row(data, signature) else data  # type: ignore[call-overload]  # a mapping, or a Series with names
    columns = inputs.read(rows, signature)
    if not count_rows(columns):
        return natural(rows, {field.name: empty(field) for field in signature.outputs})

    def ask(some: Columns, revision: str | None, within: float) -> chunks.Answer:
        asked = Route(route.headers, revision)
        return infer(backend, endpoint, some, signature, route=asked, timeout=within)

    able = backend.capabilities
    outputs = chunks.answer(
        ask,
        columns,
        revision=route.revision,
        pinnable=able.pinned_invoke,
        timeout=timeout,
        limit=able.max_request_bytes,
    )
    answer = natural(rows, outputs)
    return answer[0] if rows is not data else answer


def infer(
    backend: Serving, endpoint: str, columns: Columns, signature: Signature, *, route: Route, timeout: float
) -> chunks.Answer:
    """Send checked columns as one request; gives the outputs and the revision that answered, where the provider tells it."""
    payload = caller.encode(columns, signature, path=f"/v2/models/{endpoint}/infer")
    if route.headers:
        payload = Payload(payload.body, {**payload.headers, **route.headers})
    answer = backend.invoke(endpoint, payload, revision=route.revision, timeout=timeout)
    return caller.decode(answer), answer.headers.get(_REVISION)


def natural(data: object, outputs: Mapping[str, NDArray[Any]]) -> Any:
    """Give outputs as the kind of thing that ``data`` is: a frame or series with its index, an array, a list.

    One output is given by itself, several by name.
    """
    kind = type(data).__module__.partition(".")[0]
    makers = {"pandas": _pandas, "polars": _polars, "pyarrow": _arrow}
    if kind in makers:
        return makers[kind](data, outputs)
    if isinstance(data, np.ndarray):
        return _only(outputs) if len(outputs) == 1 else dict(outputs)
    lists = {name: array.tolist() for name, array in outputs.items()}
    if len(lists) == 1:
        return next(iter(lists.values()))
    if isinstance(data, Mapping):
        return lists
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _is_one_row(data: object, signature: Signature) -> bool:
    """Recognise one row: a dict of scalars, or a pandas Series whose labels are the columns."""
    if type(data).__name__ == "Series" and type(data).__module__.partition(".")[0] == "pandas":
        # Any other Series is a column: a text model takes one, whatever its labels are.
        return set(data.index) >= {field.name for field in signature.inputs}  # type: ignore[attr-defined]  # it is a Series
    return (
        isinstance(data, Mapping) and bool(data) and all(np.isscalar(value) or value is None for value in data.values())
    )


def _only(outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    (array,) = outputs.values()
    return array


def _columns(outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """One column for each number: an output of shape (rows, k) becomes ``name_0`` to ``name_{k-1}``."""
    flat: dict[str, NDArray[Any]] = {}
    for name, array in outputs.items():
        if array.ndim == 1:
            flat[name] = array
        else:
            wide = array.reshape(len(array), -1)
            flat.update({f"{name}_{at}": wide[:, at] for at in range(wide.shape[1])})
    return flat


def _pandas(data: Any, outputs: Mapping[str, NDArray[Any]]) -> Any:
    import pandas as pd

    columns = _columns(outputs)
    if len(columns) == 1:
        ((name, array),) = columns.items()
        return pd.Series(array, index=data.index, name=name)
    return pd.DataFrame(columns, index=data.index)


def _polars(_data: Any, outputs: Mapping[str, NDArray[Any]]) -> Any:
    import polars as pl

    frame = pl.DataFrame(
        {name: array.tolist() if array.dtype == object else array for name, array in _columns(outputs).items()}
    )
    return frame.to_series() if frame.width == 1 else frame


def _arrow(_data: Any, outputs: Mapping[str, NDArray[Any]]) -> Any:
    import pyarrow as pa

    table = pa.table({name: pa.array(array) for name, array in _columns(outputs).items()})
    return table.column(0).combine_chunks() if table.num_columns == 1 else table
