"""What a rollout has counted: bad events of the new revision and of stable, by stratum.

A stratum is the time in which the shares of both stayed the same. A few integers for each are all that the sequential test remembers; they
are journalled with every look, so whoever takes a rollout up goes on with the same test.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.stats.eprocess import Stratum
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.metrics import Window, bucket_of

_DISTRIBUTION = (0.5, 0.9, 0.99)
_LEAST_SLOW = 5
"""Answers of stable above its own quantile that make the quantile known."""


@attrs.frozen
class BadEvent:
    """One kind of bad event, counted under ``name``."""

    name: str
    metric: Metric
    limit: float | None = None
    """The largest share of bad events (0-1) that is allowed; None when only stable says what is."""
    tolerance: float = 1.0
    """How many times stable's share is allowed."""
    seconds: float | None = None
    """What takes longer is bad."""
    quantile: float | None = None
    """What takes longer than ``factor`` times this quantile of stable is bad."""
    factor: float = 1.0

    def bucket(self, base: Window) -> int | None:
        """Find the latency bucket above which an answer is bad; None when too little of stable is known."""
        if self.seconds is not None:
            return bucket_of(self.seconds)
        if self.quantile is None:
            return 0
        known = base.quantile(self.quantile)
        if known is None or base.requests * round(1 - self.quantile, 9) < _LEAST_SLOW:
            return None
        return bucket_of(self.factor * known)

    def bad(self, window: Window, bucket: int) -> int:
        """Count the bad events of a window."""
        if self.metric is Metric.DISAGREEMENT:
            return window.disagreed
        return window.slower_than(bucket) if self.metric.is_latency else window.errors

    def seen(self, window: Window) -> int:
        """Count what could have been bad."""
        if self.metric is Metric.DISAGREEMENT:
            return window.compared
        return sum(window.latency.values()) if self.metric.is_latency else window.requests


def events_of(gate: Gate) -> tuple[BadEvent, ...]:
    """Translate a gate into the bad events that it counts.

    A quantile is a share of bad events: "p95 <= 80 ms" says that at most 5 % take longer than 80 ms.
    """
    metric, name = gate.metric, str(gate)
    if metric is Metric.LATENCY:
        return tuple(
            BadEvent(f"{name} at p{q * 100:g}", metric, tolerance=1.0, quantile=q, factor=gate.limit)
            for q in _DISTRIBUTION
        )
    if metric.quantile is not None:
        rest = round(1 - metric.quantile, 9)
        if gate.relative:
            return (BadEvent(name, metric, limit=rest, quantile=metric.quantile, factor=gate.limit),)
        return (BadEvent(name, metric, limit=rest, seconds=gate.limit),)
    if gate.relative:
        return (BadEvent(name, metric, tolerance=gate.limit),)
    return (BadEvent(name, metric, limit=gate.limit),)


@attrs.frozen
class Evidence:
    """All counts of a rollout."""

    upto: float = 0.0
    """What was answered before this is counted."""
    here: int = 0
    """Answers of the new revision in this step."""
    strata: Mapping[str, tuple[Stratum, ...]] = attrs.field(factory=dict[str, tuple[Stratum, ...]])
    """By bad event."""
    assigned: tuple[Stratum, ...] = ()
    """What the traffic table gave to each, in ``new_seen`` and ``stable_seen``."""
    series: Mapping[str, tuple[tuple[float, ...], ...]] = attrs.field(factory=dict[str, tuple[tuple[float, ...], ...]])
    """One (new, stable) pair of values for each look, by gate; only for the rank test."""
    told: float = 0.0
    """When a look was last written into the history of the rollout."""
    blind: float | None = None
    """Since when the metrics cannot be read."""


@attrs.frozen
class Interval:
    """What both revisions did in one stretch of time under one pair of shares."""

    shares: tuple[int, int]
    new: Window
    stable: Window
    base: Window
    """Stable before this interval: what its quantiles are known from."""
    copied: bool = False
    """Whether the new revision was sent copies and no traffic of its own."""
    told: bool = False
    """Whether the provider itself counts what its table gave to each, so that nothing given means that nothing was."""

    @property
    def empty(self) -> bool:
        """Whether nothing happened."""
        windows = (self.new, self.stable)
        return not any(window.requests or window.assigned or window.compared for window in windows)


def count(evidence: Evidence, interval: Interval, events: tuple[BadEvent, ...]) -> Evidence:
    """Add an interval to the counts."""
    strata = dict(evidence.strata)
    for event in events:
        bucket = event.bucket(interval.base)
        if bucket is not None:
            strata[event.name] = _added(strata.get(event.name, ()), _stratum(event, interval, bucket))
    return attrs.evolve(
        evidence,
        strata=strata,
        assigned=evidence.assigned if interval.copied else _added(evidence.assigned, _given(interval)),
        here=evidence.here + max(interval.new.requests, interval.new.compared),
    )


def _given(interval: Interval) -> Stratum:
    """Count what the traffic table gave to each; where nobody tells, what each answered.

    An answer may come an interval after its request, and that one is counted already.
    """
    windows = (interval.new, interval.stable)
    new, stable = (each.assigned if interval.told else each.assigned or each.requests for each in windows)
    return Stratum(*interval.shares, new_seen=new, stable_seen=stable)


def _stratum(event: BadEvent, interval: Interval, bucket: int) -> Stratum:
    new, stable = interval.new, interval.stable
    alone = event.metric is Metric.DISAGREEMENT
    return Stratum(
        interval.shares[0],
        0 if alone else interval.shares[1],
        new_seen=event.seen(new),
        new_bad=event.bad(new, bucket),
        stable_seen=0 if alone else event.seen(stable),
        stable_bad=0 if alone else event.bad(stable, bucket),
    )


def _added(strata: tuple[Stratum, ...], one: Stratum) -> tuple[Stratum, ...]:
    """Add to the stratum of the same shares, or begin it."""
    shares = (one.new_share, one.stable_share)
    for at, known in enumerate(strata):
        if (known.new_share, known.stable_share) == shares:
            return (*strata[:at], _sum(known, one), *strata[at + 1 :])
    return (*strata, one)


def _sum(one: Stratum, two: Stratum) -> Stratum:
    return attrs.evolve(
        one,
        new_seen=one.new_seen + two.new_seen,
        new_bad=one.new_bad + two.new_bad,
        stable_seen=one.stable_seen + two.stable_seen,
        stable_bad=one.stable_bad + two.stable_bad,
    )
