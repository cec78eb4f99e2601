"""What a fleet shows of itself: its devices, its rings, and how it stands; plain sequences that also display well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import attrs

from modeldeploy.handles.views import moment
from modeldeploy.observe import notebook, text
from modeldeploy.values.edge import Device, DeviceHealth, Ring

_DEVICE = ("device", "place", "runs", "wanted", "health", "last heard of (UTC)", "note")
_RING = ("ring", "devices", "ok", "failed", "offline", "pending")
_TONES: dict[DeviceHealth, notebook.Tone] = {
    DeviceHealth.OK: "good",
    DeviceHealth.FAILED: "bad",
    DeviceHealth.OFFLINE: "plain",
    DeviceHealth.PENDING: "warn",
}
_SHOWN = 50
"""How many devices a table shows; all of them are there by their index."""


class Devices(Sequence[Device]):
    """The devices of a fleet, by their places."""

    def __init__(self, fleet: str, devices: Iterable[Device]) -> None:
        self.devices = tuple(sorted(devices, key=lambda device: (device.ring, device.id)))
        self._fleet = fleet

    @overload
    def __getitem__(self, index: int) -> Device: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Device, ...]: ...
    def __getitem__(self, index: int | slice) -> Device | tuple[Device, ...]:
        return self.devices[index]

    def __len__(self) -> int:
        return len(self.devices)

    def of(self, device: str) -> Device:
        """Find a device by its id; KeyError otherwise."""
        found = {each.id: each for each in self.devices}
        return found[device]

    def _rest(self) -> str:
        more = len(self.devices) - _SHOWN
        return f"{more} more devices are not shown" if more > 0 else ""

    def __repr__(self) -> str:
        if not self.devices:
            return f"no device of {self._fleet!r} has reported yet"
        rows = [(*_row(each)[:4], each.health.value, *_row(each)[4:]) for each in self.devices[:_SHOWN]]
        return "\n".join(filter(None, [text.table(rows, _DEVICE), self._rest()]))

    def _repr_html_(self) -> str:
        rows = [
            (*_row(each)[:4], notebook.badge(each.health.value, _TONES[each.health]), *_row(each)[4:])
            for each in self.devices[:_SHOWN]
        ]
        return notebook.table(f"devices of {self._fleet}", rows, _DEVICE, note=self._rest() or None)


def _row(device: Device) -> tuple[object, ...]:
    seen = None if device.seen is None else moment(device.seen)
    return device.id, device.ring, device.revision, device.wanted, seen, device.note or None


class Rings(Sequence[Ring]):
    """The devices that each step of a rollout adds, counted by their health."""

    def __init__(self, fleet: str, rings: Iterable[Ring]) -> None:
        self.rings = tuple(rings)
        self._fleet = fleet

    @overload
    def __getitem__(self, index: int) -> Ring: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Ring, ...]: ...
    def __getitem__(self, index: int | slice) -> Ring | tuple[Ring, ...]:
        return self.rings[index]

    def __len__(self) -> int:
        return len(self.rings)

    def _rows(self) -> list[tuple[object, ...]]:
        return [(f"to {ring.percent} %", *attrs.astuple(ring)[1:]) for ring in self.rings]

    def __repr__(self) -> str:
        return text.table(self._rows(), _RING)

    def _repr_html_(self) -> str:
        return notebook.table(f"rings of {self._fleet}", self._rows(), _RING)


@attrs.frozen(repr=False)
class TargetStatus:
    """How a fleet stands: which share of the devices is to run what, and how far that is so."""

    name: str
    table: Mapping[str, int]
    """``{revision: percent of the devices}`` as it is published."""
    running: Mapping[str, int]
    """``{revision: number of devices}`` as they report."""
    devices: Ring
    """All devices, counted by their health."""
    rollout: str = ""
    """What goes on, if something does."""

    @property
    def settled(self) -> bool:
        """Whether nothing goes on and every device runs what is wanted."""
        return not self.rollout and self.devices.ok == self.devices.devices

    def __repr__(self) -> str:
        table = ", ".join(f"{revision} {percent} %" for revision, percent in self.table.items()) or "nothing"
        runs = ", ".join(f"{revision} on {count}" for revision, count in self.running.items()) or "nothing"
        counted = [(word, getattr(self.devices, word)) for word in ("ok", "failed", "offline", "pending")]
        health = ", ".join(f"{count} {word}" for word, count in counted if count) or "none"
        lines = [f"{self.name}: wanted {table}", f"devices: {health}", f"running: {runs}"]
        return "\n".join([*lines, *([self.rollout] if self.rollout else [])])

    def _repr_html_(self) -> str:
        pairs: list[tuple[str, object]] = [line.split(": ", 1) for line in repr(self).splitlines()]  # type: ignore[misc]  # two parts each
        return notebook.definition(f"fleet {self.name}", pairs)
