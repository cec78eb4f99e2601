"""The copy of a sample that has gaps: NaN and null where they may come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.values.model import Signature

SHARE = 0.15
"""Of the values of a column."""
_MOST_ROWS, _FEWEST_ROWS = 10_000, 64
_MOST_VALUES = 4_000_000
_MOST_ALONE = 512


def may_be_missing(signature: Signature) -> tuple[str, ...]:
    """Name the columns that take NaN or null."""
    return tuple(field.name for field in signature.inputs if field.nullable)


def floats(signature: Signature) -> tuple[str, ...]:
    """Name the columns of floats."""
    return tuple(field.name for field in signature.inputs if field.dtype.value.startswith("float"))


def with_gaps(columns: Mapping[str, NDArray[Any]], names: Collection[str], *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Give rows of ``columns`` again, with gaps in the named ones: first rows with a single gap each, then a share of all values.

    The same columns give the same copy. A small sample is repeated, a large one thinned out, and of very many columns only some have a
    gap of their own.
    """
    rows = len(next(iter(columns.values())))
    widths = [_width(columns[name]) for name in names]
    alone = np.unique(np.linspace(0, sum(widths) - 1, min(sum(widths), _MOST_ALONE)).astype(int))
    wanted = len(alone) + _further(rows, sum(_width(array) for array in columns.values()))
    taken = np.linspace(0, rows - 1, wanted).round().astype(int) if rows >= wanted else np.arange(wanted) % rows
    holes = np.random.default_rng(seed).random((wanted, sum(widths))) < SHARE
    # No column's own gap may hide behind another's.
    holes[: len(alone)] = False
    holes[np.arange(len(alone)), alone] = True
    copy = {name: array[taken].copy() for name, array in columns.items()}
    for name, part in zip(names, np.split(holes, np.cumsum(widths)[:-1], axis=1), strict=True):
        array = copy[name]
        array[part.reshape(array.shape)] = None if array.dtype == object else np.nan
    return copy


def _further(rows: int, values: int) -> int:
    """Say how many rows have gaps at random, of so many values each."""
    return max(1, min(max(rows, _FEWEST_ROWS), _MOST_ROWS, _MOST_VALUES // max(values, 1)))


def _width(array: NDArray[Any]) -> int:
    return int(np.prod(array.shape[1:], dtype=int))
