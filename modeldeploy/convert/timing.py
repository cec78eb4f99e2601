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

BATCH_ROWS = 1_000
_LEAST, _MOST, _BUDGET_S = 3, 200, 0.3


@attrs.frozen
class Times:
    """Milliseconds of one kind of call."""

    median: float
    least: float

    @classmethod
    def of(cls, ask: Ask, columns: Mapping[str, NDArray[Any]]) -> Times:
        """Call a few times, for a moment; the first call warms up and does not count."""
        ask(columns)
        begun, spent = time.perf_counter(), list[float]()
        while len(spent) < _LEAST or (len(spent) < _MOST and time.perf_counter() - begun < _BUDGET_S):
            start = time.perf_counter()
            ask(columns)
            spent.append(time.perf_counter() - start)
        return cls(median=1e3 * float(np.median(spent)), least=1e3 * min(spent))


def first_rows(columns: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
    """Give so many rows; a shorter table is repeated."""
    have = len(next(iter(columns.values())))
    return {name: array[np.arange(rows) % have] for name, array in columns.items()}
