"""Measures what real predictions did, in slots as long as the service's minute."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import attrs

Series = tuple[str, str, int]
"""Endpoint, deployed model, and HTTP status of the answer."""


@attrs.define(eq=False)
class Meters:
    """Latencies in milliseconds by series and by slot."""

    slot_s: float
    _known: dict[Series, dict[int, list[float]]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def add(self, series: Series, seconds: float, at: float) -> None:
        """Count one prediction."""
        slot = math.floor(at / self.slot_s)
        with self._lock:
            self._known.setdefault(series, {}).setdefault(slot, []).append(seconds * 1000)

    def slots(self, now: float) -> Iterator[tuple[Series, float, float, list[float]]]:
        """Give series, beginning, end and latencies of every slot that has ended."""
        last = math.floor(now / self.slot_s)
        with self._lock:
            known = [
                (key, {slot: list(values) for slot, values in slots.items()}) for key, slots in self._known.items()
            ]
        for series, slots in known:
            for slot, values in sorted(slots.items()):
                if slot < last:
                    yield series, slot * self.slot_s, (slot + 1) * self.slot_s, values


def percentile(values: list[float], percent: float) -> float:
    """Give the value that so many percent of all do not exceed.

    >>> percentile([1.0] * 90 + [5.0] * 10, 95)
    5.0
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered) - 1e-9) - 1)]
