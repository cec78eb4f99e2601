"""How long a prediction takes: enough calls for a median, and no more than a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

Ask: TypeAlias = "Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]"
"""From columns to a model's answers."""

_BATCH_ROWS, _BATCH_VALUES = 1_000, 1_000_000
_LEAST, _MOST, _BUDGET_S = 3, 200, 0.1


@attrs.frozen
class Times:
    """Milliseconds of one kind of call."""

    median: float
    least: float

    @classmethod
    def of(cls, ask: Ask, columns: Mapping[str, NDArray[Any]]) -> Times:
        """Call a few times, for a moment; the first call warms up and does not count, unless it took longer than all may."""
        first = _seconds(ask, columns)
        spent = [first] if first > _BUDGET_S else list[float]()
        begun = time.perf_counter()
        while first <= _BUDGET_S and (len(spent) < _LEAST or _goes_on(spent, begun)):
            spent.append(_seconds(ask, columns))
        return cls(median=1e3 * float(np.median(spent)), least=1e3 * min(spent))


def _seconds(ask: Ask, columns: Mapping[str, NDArray[Any]]) -> float:
    start = time.perf_counter()
    ask(columns)
    return time.perf_counter() - start


def _goes_on(spent: list[float], begun: float) -> bool:
    return len(spent) < _MOST and time.perf_counter() - begun < _BUDGET_S


def batch_rows(columns: Mapping[str, NDArray[Any]]) -> int:
    """Say how many rows are a batch of this table: a thousand, fewer where a row is large."""
    values = sum(array[0].size if array.ndim > 1 else 1 for array in columns.values())
    return max(1, min(_BATCH_ROWS, _BATCH_VALUES // max(values, 1)))


def first_rows(columns: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
    """Give so many rows; a shorter table is repeated."""
    have = len(next(iter(columns.values())))
    return {name: array[np.arange(rows) % have] for name, array in columns.items()}
