"""What a model answers, read as named arrays with the rows first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import PredictionError
from modeldeploy.packaging import tables

Outputs: TypeAlias = "dict[str, NDArray[Any]]"

NAMES = {
    "predict": "prediction",
    "predict_proba": "probability",
    "decision_function": "decision",
    "transform": "feature",
}
"""The method that is called -> the name of its output."""
_NUMBERS = "biuf"


def read(raw: Any, method: str) -> Outputs:
    """Name and tidy a raw answer; PredictionError when it is not made of arrays."""
    name = NAMES.get(method, "prediction")
    if type(raw) is np.ndarray:  # as nearly always; the questions below take longer
        return {name: _array(name, raw)}
    if isinstance(raw, Mapping):
        return {str(output): _array(str(output), value) for output, value in raw.items()}
    if hasattr(raw, "columns") and type(raw).__name__ in {"DataFrame", "Table"}:
        return {column: _array(column, value) for column, value in tables.read(raw).columns.items()}
    if isinstance(raw, list | tuple) and raw and all(isinstance(part, np.ndarray) and part.ndim > 1 for part in raw):
        # scikit-learn gives one array of probabilities for each of several targets.
        return {f"{name}_{at}": _array(name, part) for at, part in enumerate(raw)}
    return {name: _array(name, raw)}


def _array(name: str, value: Any) -> NDArray[Any]:
    if type(value) is np.ndarray and value.dtype.kind in _NUMBERS and value.ndim:
        return value
    if hasattr(value, "toarray"):
        value = value.toarray()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        message = f"output {name!r} is a {type(value).__name__}, not an array: {error}"
        raise PredictionError(
            message, hint="return an array, a list or a dict of them, one entry for each row"
        ) from error
    if array.ndim == 0:
        message = f"output {name!r} is the single value {value!r:.60}, not one value for each row"
        raise PredictionError(message, hint="return an array, a list or a dict of them, one entry for each row")
    return _tidy(name, array)


def _tidy(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind == "O" and array.ndim == 1:
        return _known(name, tables.tidy(array))
    return _known(name, array)


def _known(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "O" and not all(isinstance(value, str | None) for value in array.ravel().tolist()):
        message = f"output {name!r} holds Python objects that are neither numbers nor text"
        raise PredictionError(message, hint="return numbers, flags or text, one entry for each row")
    return array
