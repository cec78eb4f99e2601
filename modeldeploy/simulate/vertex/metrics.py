"""Measures what real predictions did, in slots as long as the service's minute."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import attrs


@attrs.frozen
class Series:
    """What predictions are counted by."""

    endpoint: str
    deployed: str
    status: int
    """The HTTP status of the answer."""
    model_name: str
    endpoint_name: str
    spot: bool


@attrs.frozen
class Slot:
    """What happened in one slot: when it began and ended, and the latencies in milliseconds."""

    begin: float
    end: float
    latencies: list[float]


@attrs.define(eq=False)
class Meters:
    """Latencies by series and by slot."""

    slot_s: float
    _known: dict[Series, dict[int, list[float]]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def add(self, series: Series, seconds: float, at: float) -> None:
        """Count one prediction."""
        slot = math.floor(at / self.slot_s)
        with self._lock:
            self._known.setdefault(series, {}).setdefault(slot, []).append(seconds * 1000)

    def slots(self, now: float) -> Iterator[tuple[Series, Slot]]:
        """Give every slot that has ended, in the order of time."""
        last = math.floor(now / self.slot_s)
        with self._lock:
            known = [
                (slot, series, list(values)) for series, slots in self._known.items() for slot, values in slots.items()
            ]
        for slot, series, values in sorted(known, key=lambda each: each[0]):
            if slot < last:
                yield series, Slot(slot * self.slot_s, (slot + 1) * self.slot_s, values)


@attrs.frozen
class Distribution:
    """How values are distributed over buckets that grow, as Cloud Monitoring keeps them."""

    values: list[float]
    growth: float = 1.4
    buckets: int = 66

    @property
    def counts(self) -> list[int]:
        """How many values lie in each bucket; the first is for what is below 1, the last for what is beyond all."""
        counts = [0] * (self.buckets + 2)
        for value in self.values:
            counts[0 if value < 1 else min(self.buckets + 1, 1 + math.floor(math.log(value, self.growth)))] += 1
        return counts

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        """The sum of the squares of how far the values are from their mean."""
        return sum((each - self.mean) ** 2 for each in self.values)

    def percentile(self, percent: float) -> float:
        """Estimate a percentile as the service does: by a line through the bucket in which it lies.

        >>> 1.0 <= Distribution([1.2] * 99 + [500.0]).percentile(50) <= 1.4
        True
        """
        wanted, seen, counts = percent / 100 * len(self.values), 0, self.counts
        for number, count in enumerate(counts):
            if count and seen + count >= wanted:
                low = 0.0 if number == 0 else self.growth ** (number - 1)
                return low + (self.growth**number - low) * (wanted - seen) / count
            seen += count
        return 0.0
