"""What the service measures of variants, kept by the service's minute, and every statistic that CloudWatch makes of it."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

NAMESPACE = "AWS/SageMaker"
_MICROSECONDS = 1_000_000
_BAD, _SERVER = 400, 500
_DIGITS = 3
_KEPT = 20_000
Dimensions = frozenset[tuple[str, str]]
Values = Counter[float]
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
_RANGE = re.compile(r"(TC|TM|TS|PR|WM)\(([^:]*):([^)]*)\)")


@attrs.frozen
class Sample:
    """One request that a variant answered."""

    endpoint: str
    variant: str
    config: str
    status: int
    """What the container answered; 0 when it did not."""
    model_s: float
    overhead_s: float


@attrs.define(eq=False)
class Store:
    """Counts of values by metric, dimensions and slot. A slot can be read once it has ended, as minutes can."""

    slot_s: float
    late_s: float = 0.0
    """How long after its end a slot can be read."""
    _series: dict[tuple[str, Dimensions], dict[int, Values]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def record(self, sample: Sample, at: float, instances: int) -> None:
        """Count one request in every metric, by variant, and by variant and configuration."""
        values = _measured(sample, instances)
        slot = math.floor(at / self.slot_s)
        with self._lock:
            for dimensions in _dimensions(sample):
                for name, value in values.items():
                    slots = self._series.setdefault((name, dimensions), {})
                    if slot not in slots:
                        slots[slot] = Counter()
                        _forget(slots)
                    slots[slot][value] += 1

    def series(self) -> list[tuple[str, Dimensions]]:
        """Name every metric with its dimensions."""
        with self._lock:
            return list(self._series)

    def slots(
        self, name: str, dimensions: Dimensions, now: float, span: tuple[float, float] = (0.0, math.inf)
    ) -> dict[int, Values]:
        """Give the slots of a metric that have ended, by their numbers; ``span`` is from and until."""
        first, last = math.floor(span[0] / self.slot_s), math.floor(min(now - self.late_s, span[1]) / self.slot_s)
        with self._lock:
            slots = self._series.get((name, dimensions), {})
            return {slot: Counter(each) for slot, each in slots.items() if first <= slot < last}

    def periods(
        self, name: str, dimensions: Dimensions, period_s: float, span: tuple[float, float], now: float
    ) -> dict[float, Values]:
        """Put the slots together to periods, which begin at whole multiples of their length; ``span`` is from and until."""
        found: dict[float, Values] = {}
        whole = (span[0] - period_s, span[1] + period_s)
        for slot, values in sorted(self.slots(name, dimensions, now, whole).items()):
            # Half a slot further in, so that no rounding puts one before its own beginning.
            begins = math.floor((slot + 0.5) * self.slot_s / period_s) * period_s
            if span[0] <= begins < span[1]:
                found.setdefault(begins, Counter()).update(values)
        return found


def _forget(slots: dict[int, Values]) -> None:
    """Drop the oldest slot where there are more than anybody asks for; slots come in the order of time."""
    if len(slots) > _KEPT:
        del slots[next(iter(slots))]


def _dimensions(sample: Sample) -> Iterator[Dimensions]:
    variant = {("EndpointName", sample.endpoint), ("VariantName", sample.variant)}
    yield frozenset(variant)
    yield frozenset({*variant, ("EndpointConfigName", sample.config)})


def _measured(sample: Sample, instances: int) -> Mapping[str, float]:
    client, server = _BAD <= sample.status < _SERVER, sample.status >= _SERVER
    return {
        "Invocations": 1.0,
        "InvocationsPerInstance": 1.0 / max(1, instances),
        "Invocation4XXErrors": float(client),
        "Invocation5XXErrors": float(server),
        "InvocationModelErrors": float(not 0 < sample.status < _BAD),
        "ModelLatency": _micro(sample.model_s),
        "OverheadLatency": _micro(sample.overhead_s),
    }


def _micro(seconds: float) -> float:
    """Write seconds as microseconds with three digits, so that a slot keeps hundreds of different values and not thousands."""
    micro = max(1.0, seconds * _MICROSECONDS)
    return float(round(micro, _DIGITS - 1 - math.floor(math.log10(micro))))


def statistic(name: str, values: Values) -> float | None:
    """Make a statistic of some values, as CloudWatch names them; None for one that is not known."""
    found = _PERCENTILE.fullmatch(name)
    if found:
        return percentile(values, float(found[1]))
    ranged = _RANGE.fullmatch(name)
    if ranged:
        return _ranged(ranged[1], ranged[2], ranged[3], values)
    return _plain(name, values)


def _plain(name: str, values: Values) -> float | None:
    total, count = sum(value * times for value, times in values.items()), values.total()
    plain: Mapping[str, float] = {
        "Sum": total,
        "SampleCount": float(count),
        "Average": total / count if count else 0.0,
        "Minimum": min(values, default=0.0),
        "Maximum": max(values, default=0.0),
    }
    return plain.get(name)


def percentile(values: Values, percent: float) -> float:
    """Give the value that so many percent of all do not exceed."""
    wanted, seen = math.ceil(percent / 100 * values.total() - 1e-9), 0
    for value in sorted(values):
        seen += values[value]
        if seen >= wanted:
            return value
    return 0.0


def _ranged(kind: str, low: str, high: str, values: Values) -> float | None:
    """Make one of the statistics of a range; its bounds are values, or percentiles where they end with %."""
    least = _bound(low, values, -math.inf)
    most = _bound(high, values, math.inf)
    inside = Counter({value: times for value, times in values.items() if least < value <= most})
    if kind == "TC":
        return float(inside.total())
    if kind == "PR":
        return 100.0 * inside.total() / values.total() if values else 0.0
    if kind == "TS":
        return _plain("Sum", inside)
    return _plain("Average", inside) if kind == "TM" else None


def _bound(text: str, values: Values, default: float) -> float:
    if not text:
        return default
    return percentile(values, float(text[:-1])) if text.endswith("%") else float(text)


def dimensions_of(listed: Iterable[Mapping[str, str]]) -> Dimensions:
    """Read the dimensions of a request."""
    return frozenset((each["Name"], each["Value"]) for each in listed)


def breaches(operator: str, value: float, threshold: float) -> bool:
    """Say whether a value is on the wrong side of an alarm's threshold."""
    comparisons: Mapping[str, bool] = {
        "GreaterThanOrEqualToThreshold": value >= threshold,
        "GreaterThanThreshold": value > threshold,
        "LessThanThreshold": value < threshold,
        "LessThanOrEqualToThreshold": value <= threshold,
    }
    return comparisons.get(operator, False)


def judged(points: Sequence[float | None], *, needed: int, breaching: Sequence[bool], missing: str) -> str | None:
    """Judge an alarm by its latest periods: its new state, or None to leave it as it is."""
    if all(point is None for point in points):
        return None
    filled = [
        bad if point is not None else missing == "breaching" for point, bad in zip(points, breaching, strict=True)
    ]
    return "ALARM" if sum(filled) >= needed else "OK"
