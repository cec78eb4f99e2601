"""The copy of a sample that has gaps: NaN and null where they may come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.values.model import Signature

SHARE = 0.15
"""Of the values of a column."""
_MOST_ROWS = 10_000
_FEWEST_ROWS = 64


def may_be_missing(signature: Signature) -> tuple[str, ...]:
    """Name the columns that take NaN or null."""
    return tuple(field.name for field in signature.inputs if field.nullable)


def floats(signature: Signature) -> tuple[str, ...]:
    """Name the columns of floats."""
    return tuple(field.name for field in signature.inputs if field.dtype.value.startswith("float"))


def with_gaps(columns: Mapping[str, NDArray[Any]], names: Collection[str], *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Give rows of ``columns`` again, with gaps in the named ones: each column alone, and a share of all values.

    The same columns give the same copy. A small sample is repeated, a large one thinned out.
    """
    rows = len(next(iter(columns.values())))
    single = sum(_width(columns[name]) for name in names)
    wanted = min(max(rows, _FEWEST_ROWS), _MOST_ROWS) + single
    taken = np.linspace(0, rows - 1, wanted).round().astype(int) if rows >= wanted else np.arange(wanted) % rows
    copy = {name: array[taken].copy() for name, array in columns.items()}
    random, at = np.random.default_rng(seed), 0
    for name in names:
        flat = copy[name].reshape(wanted, -1)
        holes = random.random(flat.shape) < SHARE
        # The first rows have one gap each, so that no column's own gap hides behind another's.
        holes[:single] = False
        holes[np.arange(at, at + flat.shape[1]), np.arange(flat.shape[1])] = True
        flat[holes] = None if flat.dtype == object else np.nan
        copy[name], at = flat.reshape(copy[name].shape), at + flat.shape[1]
    return copy


def _width(array: NDArray[Any]) -> int:
    return int(np.prod(array.shape[1:], dtype=int))
