"""A short way for the usual table: scalar columns that are all floats of one type, checked as one matrix.

Checking thirty columns one by one costs more than most models. What is not plainly right is left to the signature's own check, which
finds the words for what is wrong; the two never disagree.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.values.model import DType, Field, Signature

# Up to here every whole number is a float of that type.
_EXACT = {DType.FLOAT32: 1 << 24, DType.FLOAT64: 1 << 53}
_NUMBERS: tuple[set[type], ...] = ({float}, {int}, {int, float})
_RANK = 2


class Checked(dict[str, NDArray[Any]]):
    """Columns that need no further check."""


def of_rows(rows: Sequence[Sequence[Any]], signature: Signature) -> Checked | None:
    """Take rows of JSON numbers, each as long as there are columns; None when a closer look is needed."""
    if not _alike(signature.inputs):
        return None
    kinds = set(map(type, itertools.chain.from_iterable(rows)))
    if kinds not in _NUMBERS:
        return None
    dtype = signature.inputs[0].dtype
    matrix = np.array(rows, dtype=np.float64)
    if int in kinds and not (np.abs(matrix) < _EXACT[dtype]).all():
        return None
    with np.errstate(over="ignore"):
        return _columns(matrix.astype(dtype.value, copy=False), signature.inputs)


def of_array(matrix: NDArray[Any], signature: Signature) -> Checked | None:
    """Take a matrix of exactly the columns' type; None when a closer look is needed."""
    fields = signature.inputs
    if not _alike(fields) or matrix.dtype.name != fields[0].dtype.value or matrix.shape[1:] != (len(fields),):
        return None
    return _columns(matrix, fields)


def _alike(fields: Sequence[Field]) -> bool:
    first = fields[0].dtype
    return first in _EXACT and all(field.dtype is first and not field.shape for field in fields)


def _columns(matrix: NDArray[Any], fields: Sequence[Field]) -> Checked | None:
    if matrix.ndim != _RANK or not matrix.size or not np.isfinite(matrix).all():
        return None
    # Each column in one piece of memory, as a model would get it from the long way.
    columns = np.ascontiguousarray(matrix.T)
    return Checked((field.name, column) for field, column in zip(fields, columns, strict=True))
