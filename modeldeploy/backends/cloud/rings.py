"""Shares of devices as ranges of places: the newest revision has the lowest, so whoever had it keeps it when its share grows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.serving import WHOLE, Traffic


def bounds(ranked: Iterable[str], traffic: Traffic) -> dict[str, int]:
    """Give the place below which each revision is wanted unless one before it is; ``ranked`` names the newest first.

    >>> bounds(["v3", "v2", "v1"], Traffic({"v3": 10, "v1": 90}))
    {'v3': 10, 'v2': 10, 'v1': 100}
    """
    found, edge = {}, 0
    for revision in ranked:
        edge += traffic.share(revision)
        found[revision] = edge
    return found


def table(ranked: Mapping[str, int]) -> Traffic:
    """Read the table back from bounds, the newest revision first.

    >>> table({"v3": 10, "v2": 10, "v1": 100}).weights
    {'v3': 10, 'v2': 0, 'v1': 90}
    """
    weights, edge = {}, 0
    for revision, bound in ranked.items():
        weights[revision] = max(0, min(bound, WHOLE) - edge)
        edge = max(edge, bound)
    return Traffic(weights) if sum(weights.values()) in {0, WHOLE} else Traffic()


def wanted(ranked: Mapping[str, int], place: int) -> str | None:
    """Name the revision that a place is to run; None when none reaches it."""
    return next((revision for revision, bound in ranked.items() if place < bound), None)


def walk(now: Mapping[str, int], then: Mapping[str, int]) -> list[tuple[str, int]]:
    """List the changes of bounds, in an order in which no device is ever without a revision: first those that rise.

    >>> walk({"v2": 50, "v1": 100}, {"v2": 0, "v1": 100})
    [('v2', 0)]
    """
    changed = [(revision, bound) for revision, bound in then.items() if now.get(revision) != bound]
    return sorted(changed, key=lambda each: (each[1] < now.get(each[0], 0), each[0]))


def gained(before: Mapping[str, int], then: Mapping[str, int]) -> list[str]:
    """Name the revisions that have places now which they had not before.

    >>> gained({"v2": 50, "v1": 100}, {"v2": 10, "v1": 100})
    ['v1']
    """
    had, have = _ranges(before), _ranges(then)
    return [revision for revision, places in have.items() if set(places) - set(had.get(revision, ()))]


def _ranges(ranked: Mapping[str, int]) -> dict[str, range]:
    found, edge = {}, 0
    for revision, bound in ranked.items():
        found[revision] = range(edge, max(edge, bound))
        edge = max(edge, bound)
    return found


def refuse_others(target: str, before: Mapping[str, int], now: Mapping[str, int], table: Traffic) -> None:
    """Raise ConflictError unless the bounds are those that a change began with, or on its way from there to the wanted table."""
    passed = dict(before)
    stations = [dict(passed)]
    for revision, bound in walk(before, bounds(before, table)):
        passed[revision] = bound
        stations.append(dict(passed))
    if dict(now) not in stations:
        message = f"somebody else changed the deployments of target {target!r}: {dict(now)}"
        raise ConflictError(message, hint="observe it again and decide anew")


def outstanding(devices: Sequence[Device]) -> list[str]:
    """Name the devices that can be reached and have not answered yet."""
    return [device.id for device in devices if device.health is DeviceHealth.PENDING]


def unheard(devices: Sequence[Device], since: float) -> list[str]:
    """Name the devices that said no, but have not been heard of since they were asked once more."""
    failed = (device for device in devices if device.health is DeviceHealth.FAILED)
    return [device.id for device in failed if device.seen is None or device.seen < since]


def summary(devices: Sequence[Device]) -> str:
    """Say how the devices stand, in a few words."""
    counts = {health: sum(device.health is health for device in devices) for health in DeviceHealth}
    return ", ".join(f"{count} {health.value}" for health, count in counts.items() if count) or "no devices"


def refuse_used(target: str, table: Traffic, revision: str) -> None:
    """Refuse to drop a revision that devices are told to run."""
    share = table.share(revision)
    if share:
        message = f"revision {revision!r} of {target!r} is for {share} % of the devices"
        raise ConflictError(message, hint="give its devices to another revision first")


def refuse_table(target: str, known: Iterable[str], table: Traffic, *, backend: str) -> None:
    """Refuse a table that a target with these revisions cannot hold, before anything is sent."""
    found = sorted(known)
    unknown = sorted({*table.weights} - {*found})
    if unknown:
        message = f"target {target!r} has no revisions {unknown}"
        raise NotFoundError(message, hint=f"it has {found}", context={"backend": backend})
