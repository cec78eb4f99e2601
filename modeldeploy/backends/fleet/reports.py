"""Reports into devices: what each said last, held against what is wanted of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from modeldeploy.edge.desired import Desired, place, wanted
from modeldeploy.edge.layout import REPORTS
from modeldeploy.edge.reports import Health, Report
from modeldeploy.edge.stores import Store
from modeldeploy.errors import IntegrityError
from modeldeploy.values.edge import Device, DeviceHealth

_SUFFIX = ".json"


def devices(store: Store, desired: Desired | None, fleet: str, since: float) -> Iterator[Device]:
    """Read every device's report; one that was last written before ``since`` is of a device that is offline.

    A report that cannot be read says nothing: its device counts as offline until it writes another one.
    """
    for path in store.list(REPORTS):
        name = path.removeprefix(REPORTS).removesuffix(_SUFFIX)
        seen, data = store.modified(path), store.get(path)
        if seen is None or data is None:
            continue
        report = _read(data, name, fleet)
        if report is None:
            goal = wanted(desired, name) if desired else None
            yield Device(name, place(fleet, name), None, goal, DeviceHealth.OFFLINE, seen, "its report cannot be read")
        else:
            yield _device(report, desired, seen, offline=seen < since)


def _read(data: bytes, device: str, fleet: str) -> Report | None:
    with contextlib.suppress(IntegrityError):
        report = Report.from_bytes(data)
        if (report.device, report.fleet) == (device, fleet):
            return report
    return None


def _device(report: Report, desired: Desired | None, seen: float, *, offline: bool) -> Device:
    goal = wanted(desired, report.device) if desired else None
    return Device(
        id=report.device,
        ring=place(report.fleet, report.device),
        revision=report.running,
        wanted=goal,
        health=_health(report, desired, goal, offline=offline),
        seen=seen,
        note=report.note,
        sequence=report.sequence,
    )


def _health(report: Report, desired: Desired | None, goal: str | None, *, offline: bool) -> DeviceHealth:
    if _failed(report, desired, goal):
        return DeviceHealth.FAILED
    if offline:
        return DeviceHealth.OFFLINE
    return DeviceHealth.OK if goal in {None, report.running} else DeviceHealth.PENDING


def _failed(report: Report, desired: Desired | None, goal: str | None) -> bool:
    """Whether a device said no to what is wanted of it now; what it said of something else does not count."""
    if report.health is not Health.FAILED or desired is None or goal is None:
        return False
    if report.running == goal:
        return report.failed_revision in {None, goal}
    return report.failed_revision == goal and report.sequence >= desired.sequence
