"""What was measured of one revision in a window of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

import attrs

# Eight buckets for each doubling: a quantile is read off at most 9 % too high, and 60 s needs 160 buckets of 50 us and up.
_PER_DOUBLING = 8
_SMALLEST_S = 50e-6
_LARGEST = 200


def bucket_of(seconds: float) -> int:
    """Give the number of the histogram bucket for a latency; bucket ``k`` ends at ``bucket_end(k)``."""
    if seconds <= _SMALLEST_S:
        return 0
    return min(_LARGEST, math.ceil(math.log2(seconds / _SMALLEST_S) * _PER_DOUBLING - 1e-9))


def bucket_end(bucket: int) -> float:
    """Give the upper edge of a bucket in seconds."""
    return float(_SMALLEST_S * 2.0 ** (bucket / _PER_DOUBLING))


@attrs.frozen
class Window:
    """Counts of one revision between ``since`` and ``until`` (seconds since the epoch); latencies in logarithmic buckets."""

    revision: str
    since: float
    until: float
    requests: int = 0
    errors: int = 0
    """Answers that were the service's fault: 5xx, time-outs, broken connections. A caller's mistake (4xx) is none."""
    latency: Mapping[str, int] = attrs.field(factory=dict[str, int])
    """Bucket number (as text, for JSON) to count."""
    assigned: int = 0
    """Requests (keys, where assignment sticks) that the traffic table gave to the revision, counted when they came in."""
    compared: int = 0
    """Answers of a shadow that were held against stable's answer to the same request."""
    disagreed: int = 0
    """Those of them that differ."""
    dropped: int = 0
    """Copies that were not sent, because too many were waiting."""

    @property
    def error_rate(self) -> float | None:
        """Errors per request, 0-1; None without requests."""
        return self.errors / self.requests if self.requests else None

    def quantile(self, q: float) -> float | None:
        """Give the latency in seconds below which a share ``q`` (0-1) of the answers lies, rounded up to its bucket's edge."""
        total = sum(self.latency.values())
        if not total:
            return None
        # 0.07 * 100 is a little more than 7 in floats, and the rank is 7.
        rank = math.ceil(q * total - 1e-9)
        buckets = sorted(int(key) for key in self.latency)
        counted = itertools.accumulate(self.latency[str(bucket)] for bucket in buckets)
        return bucket_end(next(bucket for bucket, seen in zip(buckets, counted, strict=True) if seen >= rank))

    def slower_than(self, bucket: int) -> int:
        """Count the answers that took longer than the end of a bucket."""
        return sum(count for key, count in self.latency.items() if int(key) > bucket)


def merge(windows: Iterable[Window]) -> Window:
    """Add up windows of one revision; at least one is needed."""
    first, *rest = windows
    latency = dict(first.latency)
    for window in rest:
        for bucket, count in window.latency.items():
            latency[bucket] = latency.get(bucket, 0) + count
    every = [first, *rest]
    return Window(
        revision=first.revision,
        since=min(window.since for window in every),
        until=max(window.until for window in every),
        requests=sum(window.requests for window in every),
        errors=sum(window.errors for window in every),
        latency=latency,
        assigned=sum(window.assigned for window in every),
        compared=sum(window.compared for window in every),
        disagreed=sum(window.disagreed for window in every),
        dropped=sum(window.dropped for window in every),
    )
