"""What each revision answered: counts and latencies, for gates (by the second, for an hour) and for Prometheus (since the start).

Recording is on the path of every request: two increments and one histogram bucket, no lock (the front has one thread) and no log line.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable

from modeldeploy.values.metrics import Window, bucket_end, bucket_of, merge

KEPT_S = 3_600
"""How long the figures of one second are kept."""

_LAST_BUCKET = bucket_of(1e9)
# Every doubling from 0.8 ms to 26 s is the edge of one of our own buckets, so what Prometheus sees is exact.
_EDGES = tuple(range(32, 160, 8))
_SERVER_FAULT = 500
_SHED = 429


def is_error(status: int) -> bool:
    """Whether an answer was the service's fault: 5xx, or a request turned away because too many were waiting."""
    return status >= _SERVER_FAULT or status == _SHED


class _Second:
    __slots__ = ("at", "errors", "latency", "requests")

    def __init__(self, at: int) -> None:
        self.at = at
        self.requests = 0
        self.errors = 0
        self.latency: dict[int, int] = {}


class Meter:
    """The figures of one revision."""

    def __init__(self, revision: str, *, clock: Callable[[], float] = time.time) -> None:
        self.revision = revision
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.shed: collections.Counter[str] = collections.Counter()
        self.restarts = 0
        self.retried = 0
        self.seconds_sum = 0.0
        self.buckets = [0] * (_LAST_BUCKET + 1)
        self._clock = clock
        self._kept: collections.deque[_Second] = collections.deque()

    def record(self, status: int, seconds: float) -> None:
        """Count one answer."""
        now = int(self._clock())
        kept = self._kept
        if not kept or kept[-1].at < now:
            kept.append(_Second(now))
            while kept[0].at < now - KEPT_S:
                kept.popleft()
        # A clock that was set back adds to the newest second rather than break the order.
        second = kept[-1]
        bucket = bucket_of(seconds)
        second.requests += 1
        second.latency[bucket] = second.latency.get(bucket, 0) + 1
        self.buckets[bucket] += 1
        self.seconds_sum += seconds
        if is_error(status):
            second.errors += 1
            self.outcomes["error"] += 1
        else:
            self.outcomes["ok" if status < 400 else "refused"] += 1  # noqa: PLR2004 - the border of HTTP's 4xx

    def window(self, since: float, until: float) -> Window:
        """Add up the seconds that lie, wholly or in part, between two instants (seconds since the epoch)."""
        inside = (second for second in self._kept if second.at + 1 > since and second.at < until)
        return merge(
            [Window(self.revision, since, until), *(self._as_window(second, since, until) for second in inside)]
        )

    def _as_window(self, second: _Second, since: float, until: float) -> Window:
        latency = {str(bucket): count for bucket, count in second.latency.items()}
        return Window(self.revision, since, until, second.requests, second.errors, latency)

    def cumulative(self) -> Iterable[tuple[str, int]]:
        """Give (upper edge in seconds, answers up to it), as Prometheus counts histograms."""
        total, start = 0, 0
        for edge in _EDGES:
            total += sum(self.buckets[start : edge + 1])
            start = edge + 1
            yield f"{bucket_end(edge):.6g}", total
        yield "+Inf", sum(self.buckets)


class Reading:
    """What is true of a revision at this moment, beside what its meter counted."""

    __slots__ = ("endpoint", "inflight", "meter", "queued", "weight")

    def __init__(self, endpoint: str, meter: Meter, *, weight: int, queued: int, inflight: int) -> None:
        self.endpoint = endpoint
        self.meter = meter
        self.weight = weight
        self.queued = queued
        self.inflight = inflight


def exposition(readings: Iterable[Reading]) -> str:
    """Write the figures in Prometheus' text format, version 0.0.4."""
    readings = list(readings)
    families = [
        ("requests_total", "counter", "Answers by outcome: ok, refused (4xx), error.", _requests),
        ("request_duration_seconds", "histogram", "Time from the request's arrival to its answer.", _durations),
        ("shed_total", "counter", "Requests turned away, by reason.", _shed),
        ("retries_total", "counter", "Requests sent again because their worker died.", _simple("retried")),
        ("worker_restarts_total", "counter", "Workers that died while they served.", _simple("restarts")),
        ("inflight", "gauge", "Requests with a worker now.", _inflight),
        ("queued", "gauge", "Requests waiting for a worker now.", _queued),
        ("rollout_weight", "gauge", "Share of the traffic, in percent.", _weight),
    ]
    lines: list[str] = []
    for name, kind, text, write in families:
        metric = f"modeldeploy_{name}"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]
        for reading in readings:
            lines += write(metric, reading)
    return "\n".join(lines) + "\n"


def _labels(reading: Reading, **more: str) -> str:
    # Names are checked against the name grammar, so nothing in them needs escaping.
    every = {"endpoint": reading.endpoint, "revision": reading.meter.revision, **more}
    return "{" + ",".join(f'{key}="{value}"' for key, value in every.items()) + "}"


def _requests(metric: str, reading: Reading) -> list[str]:
    counts = reading.meter.outcomes
    return [f"{metric}{_labels(reading, outcome=each)} {counts[each]}" for each in ("ok", "refused", "error")]


def _durations(metric: str, reading: Reading) -> list[str]:
    rows = [f"{metric}_bucket{_labels(reading, le=edge)} {count}" for edge, count in reading.meter.cumulative()]
    total = sum(reading.meter.buckets)
    sums = f"{metric}_sum{_labels(reading)} {reading.meter.seconds_sum:.9g}"
    return [*rows, sums, f"{metric}_count{_labels(reading)} {total}"]


def _shed(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading, reason=reason)} {count}" for reason, count in reading.meter.shed.items()]


def _simple(attribute: str) -> Callable[[str, Reading], list[str]]:
    return lambda metric, reading: [f"{metric}{_labels(reading)} {getattr(reading.meter, attribute)}"]


def _inflight(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.inflight}"]


def _queued(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.queued}"]


def _weight(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.weight}"]
