"""What the reference provider measures: every answer, and under which share of the traffic it was asked for."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from modeldeploy.values.metrics import Window, bucket_of, merge

COPY = 0
"""The share under which answers to copies are counted."""


@attrs.define
class Units:
    """The keys that one rollout has counted already."""

    assigned: set[str] = attrs.field(factory=set)
    answered: set[str] = attrs.field(factory=set)
    served: set[tuple[str, str]] = attrs.field(factory=set)
    """Key and revision that answered it."""
    failed: set[str] = attrs.field(factory=set)


class Samples:
    """All that was answered, by endpoint and revision."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[tuple[int | None, Window]]] = {}

    def add(self, endpoint: str, sample: Window, share: int | None = None) -> None:
        """Note answers that were given ``share`` percent of the traffic; None for those that no table gave."""
        self._kept.setdefault((endpoint, sample.revision), []).append((share, sample))

    def window(self, endpoint: str, revision: str, since: float, until: float, share: int | None) -> Window:
        """Add up what was noted at or after ``since`` and before ``until``."""
        return merge([Window(revision, since, until), *self._within(endpoint, revision, since, until, share)])

    def _within(self, endpoint: str, revision: str, since: float, until: float, share: int | None) -> Iterable[Window]:
        for given, sample in self._kept.get((endpoint, revision), ()):
            if since <= sample.since < until and share in {None, given}:
                yield sample


def sample(revision: str, at: float, *, requests: int, errors: int, latency: float, assigned: int = 0) -> Window:
    """Make the note of some answers that took ``latency`` seconds each."""
    return Window(revision, at, at, requests, errors, {str(bucket_of(latency)): requests}, assigned)


def per_key(seen: Window, key: str, units: Units) -> Window:
    """Count a key once: its first assignment, its first answer's latency, its first failure.

    A key that moves to another revision without having failed can fail there, so it counts among that revision's requests too.
    """
    latency = {} if key in units.answered else seen.latency
    served = (key, seen.revision) not in units.served and key not in units.failed
    failed = bool(seen.errors) and key not in units.failed
    assigned = key not in units.assigned
    units.answered.add(key)
    units.assigned.add(key)
    units.served.add((key, seen.revision))
    if failed:
        units.failed.add(key)
    return attrs.evolve(seen, requests=int(served), errors=int(failed), assigned=int(assigned), latency=latency)
