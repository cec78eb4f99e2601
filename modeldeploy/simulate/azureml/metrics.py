"""Measures what real requests did, in slots as long as the service's minute."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping

import attrs

Values = Counter[float]
_DIGITS = 3
_MILLI = 1_000.0


@attrs.frozen
class Sample:
    """One request: its answer's status, the model's own (0 when it gave none), and how long it took."""

    endpoint: str
    deployment: str
    status: int
    model_status: int
    seconds: float

    @property
    def dimensions(self) -> tuple[tuple[str, str], ...]:
        """Give the dimensions that it is counted by."""
        return (
            ("deployment", self.deployment),
            ("modelStatusCode", str(self.model_status) if self.model_status else ""),
            ("statusCode", str(self.status)),
            ("statusCodeClass", f"{self.status // 100}xx"),
        )


Key = tuple[str, tuple[tuple[str, str], ...]]


class Meters:
    """Latencies in milliseconds by endpoint and dimensions, and by slot."""

    def __init__(self, slot_s: float) -> None:
        self.slot_s = slot_s
        self._series: dict[Key, dict[int, Values]] = {}
        self._lock = threading.Lock()

    def add(self, sample: Sample, at: float) -> None:
        """Count one request."""
        key, slot = (sample.endpoint, sample.dimensions), math.floor(at / self.slot_s)
        value = _rounded(sample.seconds * _MILLI)
        with self._lock:
            slots = self._series.setdefault(key, {})
            slots.setdefault(slot, Counter())[value] += 1

    def forget(self, endpoint: str) -> None:
        """Throw away what was measured of an endpoint."""
        with self._lock:
            self._series = {key: slots for key, slots in self._series.items() if key[0] != endpoint}

    def intervals(
        self, endpoint: str, length_s: float, span: tuple[float, float], now: float
    ) -> Iterator[tuple[Mapping[str, str], float, Values]]:
        """Give dimensions, beginning and values of each interval that has any; of slots that have ended only."""
        last = math.floor(now / self.slot_s)
        with self._lock:
            series = [(key, dict(slots)) for key, slots in self._series.items() if key[0] == endpoint]
        for key, slots in series:
            for slot, values in slots.items():
                # Half a slot further in, so that no rounding puts one before its own beginning.
                begins = math.floor((slot + 0.5) * self.slot_s / length_s) * length_s
                if slot < last and span[0] <= begins < span[1]:
                    yield dict(key[1]), begins, values.copy()


def percentile(values: Values, percent: float) -> float:
    """Give the value that so many percent of all do not exceed.

    >>> percentile(Counter({1.0: 90, 5.0: 10}), 95)
    5.0
    """
    wanted, seen = math.ceil(percent / 100 * values.total() - 1e-9), 0
    for value in sorted(values):
        seen += values[value]
        if seen >= wanted:
            return value
    return 0.0


def _rounded(milliseconds: float) -> float:
    """Keep three digits, so that a slot keeps hundreds of different values and not thousands."""
    value = max(0.001, milliseconds)
    return float(round(value, _DIGITS - 1 - math.floor(math.log10(value))))
