"""What each revision answered: counts and latencies, for gates (by the second, for an hour) and for Prometheus (since the start).

Recording is on the path of every request: a few increments and one histogram bucket, no lock (the front has one thread) and no log line.
"""

from __future__ import annotations

import bisect
import collections
import time
from collections.abc import Callable, Iterable, Mapping

from modeldeploy.serving.units import ANSWERED, ASSIGNED, FAILED, Unit
from modeldeploy.values.metrics import Window, bucket_end, bucket_of, merge

KEPT_S = 3_600
"""How long the figures of one second are kept."""

COPY = 0
"""The share under which a shadow's copies are counted; a table that gives a revision 0 % gives it no request."""

_LAST_BUCKET = bucket_of(1e9)
BUCKETS = _LAST_BUCKET + 1
"""Buckets of the histogram of latencies."""
# To find a bucket among its ends takes half the time of a logarithm. The margin is the one that ``bucket_of`` leaves for rounding.
_ENDS = tuple(bucket_end(bucket) * (1 + 1e-10) for bucket in range(_LAST_BUCKET))
# Every doubling from 0.8 ms to 26 s is the edge of one of our own buckets, so what Prometheus sees is exact.
_EDGES = tuple(range(32, 160, 8))
_FATES = ("sent", "compared", "disagreed", "dropped")
_SERVER_FAULT = 500
_SHED = 429


def bucket_for(seconds: float) -> int:
    """Find the bucket of a latency, as ``bucket_of`` does and in half the time."""
    return bisect.bisect_left(_ENDS, seconds)


def is_error(status: int) -> bool:
    """Whether an answer was the service's fault: 5xx, or a request turned away because too many were waiting."""
    return status >= _SERVER_FAULT or status == _SHED


class _Tally:
    """What was counted in one second of requests that came the same way."""

    __slots__ = ("answers", "assigned", "compared", "disagreed", "dropped", "errors", "latency")

    def __init__(self) -> None:
        self.answers = self.errors = self.assigned = 0
        self.compared = self.disagreed = self.dropped = 0
        self.latency: collections.defaultdict[int, int] = collections.defaultdict(int)

    def window(self, revision: str, since: float, until: float) -> Window:
        latency = {str(bucket): count for bucket, count in self.latency.items()}
        counts = (self.assigned, self.compared, self.disagreed, self.dropped)
        return Window(revision, since, until, self.answers, self.errors, latency, *counts)


class _Second:
    """One second: by the share of the traffic that a request was given under (None: by no table), and the same of keys, each once."""

    __slots__ = ("answers", "at", "units")

    def __init__(self, at: int) -> None:
        self.at = at
        self.answers: collections.defaultdict[int | None, _Tally] = collections.defaultdict(_Tally)
        self.units: collections.defaultdict[int | None, _Tally] = collections.defaultdict(_Tally)

    def tallies(self, share: int | None) -> Iterable[_Tally]:
        """Give what belongs to a share; None for all that was answered."""
        if share is None:
            return self.answers.values()
        return (counted[share] for counted in (self.answers, self.units) if share in counted)

    @property
    def keys_assigned(self) -> int:
        return sum(tally.assigned for tally in self.units.values())


class Meter:
    """The figures of one revision."""

    def __init__(self, revision: str, *, clock: Callable[[], float] = time.time) -> None:
        self.revision = revision
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.shed: collections.Counter[str] = collections.Counter()
        self.copies: collections.Counter[str] = collections.Counter()
        self.restarts = 0
        self.lines_dropped = 0
        self.retried = 0
        self.uncounted = 0
        """Requests whose key is not counted, because there are too many keys."""
        self.seconds_sum = 0.0
        self.buckets = [0] * BUCKETS
        self._clock = clock
        self._kept: collections.deque[_Second] = collections.deque()
        self._newest = _Second(0)
        self._end = 0

    def assign(self, share: int, unit: Unit | None = None) -> None:
        """Count one request that the traffic table gave to the revision while it had ``share`` percent."""
        if unit is None:
            self._second().answers[share].assigned += 1
        elif unit.first(ASSIGNED):
            self._second().units[share].assigned += 1
        elif not unit.counted:
            self.uncounted += 1

    def record(self, status: int, seconds: float, share: int | None = None, unit: Unit | None = None) -> None:
        """Count one answer.

        ``share`` is what the traffic table gave to the revision when the request came in: None when no table chose the revision (a pinned
        call, a second answer for a failed canary), ``COPY`` for a shadow's copy. With a ``unit`` the share counts its key, once.
        """
        second = self._second()
        bucket = bucket_for(seconds)
        failed = is_error(status)
        tally = second.answers[share if unit is None else None]
        tally.answers += 1
        tally.latency[bucket] += 1
        self.buckets[bucket] += 1
        self.seconds_sum += seconds
        if failed:
            tally.errors += 1
            self.outcomes["error"] += 1
        else:
            self.outcomes["ok" if status < 400 else "refused"] += 1  # noqa: PLR2004 - the border of HTTP's 4xx
        if unit is not None:
            _count_key(second.units[share], unit, self.revision, bucket, failed=failed)

    def record_many(self, buckets: Mapping[int, int], seconds: float, share: int) -> None:
        """Count good answers that the front did not see, by bucket, which took so many seconds together; each was given under ``share``."""
        tally = self._second().answers[share]
        for bucket, count in buckets.items():
            tally.answers += count
            tally.assigned += count
            tally.latency[bucket] += count
            self.buckets[bucket] += count
            self.outcomes["ok"] += count
        self.seconds_sum += seconds

    def blame(self, share: int | None, unit: Unit | None) -> None:
        """Count an answer as a failure that was counted as the caller's mistake: stable took the same request."""
        second = self._second()
        second.answers[share if unit is None else None].errors += 1
        self.outcomes["refused"] -= 1
        self.outcomes["error"] += 1
        if unit is not None and unit.first(FAILED):
            second.units[share].errors += 1

    def copied(self) -> None:
        """Count one copy that is sent."""
        self.copies["sent"] += 1

    def compared(self, *, agree: bool) -> None:
        """Count one copy whose answer was held against the caller's."""
        tally = self._second().answers[COPY]
        tally.compared += 1
        tally.disagreed += not agree
        self.copies["compared"] += 1
        self.copies["disagreed"] += not agree

    def dropped(self) -> None:
        """Count one copy that was not sent."""
        self._second().answers[COPY].dropped += 1
        self.copies["dropped"] += 1

    def _second(self) -> _Second:
        now = self._clock()
        # A clock that was set back adds to the newest second rather than break the order.
        return self._newest if now < self._end else self._begin(int(now))

    def _begin(self, now: int) -> _Second:
        self._newest, self._end = _Second(now), now + 1
        self._kept.append(self._newest)
        self.tidy()
        return self._newest

    def tidy(self) -> None:
        """Forget the seconds that are over for long; one that counts nothing more keeps them until it is told to."""
        oldest, kept = int(self._clock()) - KEPT_S, self._kept
        while kept and kept[0].at < oldest:
            kept.popleft()

    def window(self, since: float, until: float, *, share: int | None = None) -> Window:
        """Add up the seconds that lie, wholly or in part, between two instants (seconds since the epoch).

        Between whole seconds windows that meet are disjoint and complete. With ``share`` only what the table gave under it.
        """
        found = [Window(self.revision, since, until)]
        for second in reversed(self._kept):
            if second.at + 1 <= since:
                break
            if second.at < until:
                found += [tally.window(self.revision, since, until) for tally in second.tallies(share)]
                if share is None and second.units:
                    found.append(Window(self.revision, since, until, assigned=second.keys_assigned))
        return merge(found)

    def cumulative(self) -> Iterable[tuple[str, int]]:
        """Give (upper edge in seconds, answers up to it), as Prometheus counts histograms."""
        total, start = 0, 0
        for edge in _EDGES:
            total += sum(self.buckets[start : edge + 1])
            start = edge + 1
            yield f"{bucket_end(edge):.6g}", total
        yield "+Inf", sum(self.buckets)


def _count_key(tally: _Tally, unit: Unit, revision: str, bucket: int, *, failed: bool) -> None:
    tally.answers += unit.served(revision)
    if unit.first(ANSWERED):
        tally.latency[bucket] += 1
    if failed and unit.first(FAILED):
        tally.errors += 1


class Reading:
    """What is true of a revision at this moment, beside what its meter counted."""

    __slots__ = ("breaker_open", "endpoint", "inflight", "meter", "queued", "weight", "workers")

    def __init__(self, endpoint: str, meter: Meter, *, weight: int = 0, queued: int = 0, inflight: int = 0) -> None:
        self.endpoint = endpoint
        self.meter = meter
        self.weight = weight
        self.queued = queued
        self.inflight = inflight
        self.workers = 1
        self.breaker_open = False


def exposition(readings: Iterable[Reading]) -> str:
    """Write the figures in Prometheus' text format, version 0.0.4."""
    readings = list(readings)
    families = [
        ("requests_total", "counter", "Answers by outcome: ok, refused (4xx), error.", _requests),
        ("request_duration_seconds", "histogram", "Time from the request's arrival to its answer.", _durations),
        ("shed_total", "counter", "Requests turned away, by reason.", _shed),
        ("retries_total", "counter", "Requests sent again because their worker died.", _simple("retried")),
        ("worker_restarts_total", "counter", "Workers that died or hung while they served.", _simple("restarts")),
        ("breaker_open", "gauge", "Whether three workers died within the last minute.", _breaker),
        ("log_lines_dropped_total", "counter", "Lines of workers that could not be written.", _simple("lines_dropped")),
        (
            "shadow_copies_total",
            "counter",
            "Copies of requests by what became of them: sent, compared, disagreed, dropped.",
            _copies,
        ),
        (
            "uncounted_keys_total",
            "counter",
            "Requests whose key is not counted for a rollout, for it has too many.",
            _simple("uncounted"),
        ),
        ("workers", "gauge", "Workers that are ready now.", _workers),
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


def _copies(metric: str, reading: Reading) -> list[str]:
    counts = reading.meter.copies
    return [f"{metric}{_labels(reading, fate=fate)} {counts[fate]}" for fate in _FATES] if counts else []


def _inflight(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.inflight}"]


def _breaker(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {int(reading.breaker_open)}"]


def _workers(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.workers}"]


def _queued(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.queued}"]


def _weight(metric: str, reading: Reading) -> list[str]:
    return [f"{metric}{_labels(reading)} {reading.weight}"]
