"""Devices of a fleet and the rings in which a revision reaches them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import attrs


class DeviceHealth(enum.StrEnum):
    """How a device stands to what is wanted of it."""

    OK = "ok"
    """It runs what is wanted."""
    FAILED = "failed"
    """It refused what is wanted after its self-test, or says that what it runs is not well."""
    OFFLINE = "offline"
    """It was not heard of for too long; it goes on with what it has and catches up when it is back."""
    PENDING = "pending"
    """It can be reached and has not answered yet."""


@attrs.frozen
class Device:
    """One device as it last said it was."""

    id: str
    ring: int
    """Its place in the fleet, 0-99, which never changes: a revision with 10 percent is wanted by the places 0-9."""
    revision: str | None
    """What it runs; None when nothing."""
    wanted: str | None
    """What it should run by the table that is published."""
    health: DeviceHealth
    seen: float | None = None
    """When it was last heard of, in seconds since the epoch; None: never."""
    note: str = ""
    """What it says about itself, such as why it failed."""
    sequence: int = 0
    """The number of the last published state that it has seen."""

    @property
    def answered(self) -> bool:
        """Whether it said yes or no to what is wanted of it."""
        return self.health in {DeviceHealth.OK, DeviceHealth.FAILED}


@attrs.frozen
class Ring:
    """The devices that a step of a rollout adds, counted by their health."""

    percent: int
    """The share of the fleet with which it ends."""
    devices: int = 0
    ok: int = 0
    failed: int = 0
    offline: int = 0
    pending: int = 0

    @property
    def answered(self) -> int:
        """How many devices said yes or no."""
        return self.ok + self.failed

    @classmethod
    def of(cls, percent: int, devices: Iterable[Device]) -> Ring:
        """Count these devices."""
        healths = [device.health for device in devices]
        return cls(percent, len(healths), *(healths.count(each) for each in _COUNTED))


_COUNTED = (DeviceHealth.OK, DeviceHealth.FAILED, DeviceHealth.OFFLINE, DeviceHealth.PENDING)


def rings(devices: Sequence[Device], steps: Iterable[int]) -> tuple[Ring, ...]:
    """Count the devices that each step adds to the one before.

    >>> one = Device("a", ring=7, revision="r", wanted="r", health=DeviceHealth.OK)
    >>> [(ring.percent, ring.devices) for ring in rings([one], (10, 100))]
    [(10, 1), (100, 0)]
    """
    ends = tuple(steps)
    starts = (0, *ends[:-1])
    return tuple(
        Ring.of(end, (device for device in devices if start <= device.ring < end))
        for start, end in zip(starts, ends, strict=True)
    )


def raised(steps: Iterable[int], devices: Sequence[Device], least: int) -> tuple[int, ...]:
    """Raise each percentage until it holds at least ``least`` reachable devices, or all there are: a ring of one cannot vote.

    Where no device can be reached nothing is raised: nobody could vote. The last step stays what it is; steps that became the same are one.

    >>> far = Device("a", ring=40, revision=None, wanted="r", health=DeviceHealth.PENDING)
    >>> raised((10, 50, 100), [far], least=1)
    (41, 50, 100)
    """
    places = sorted(device.ring for device in devices if device.health is not DeviceHealth.OFFLINE)
    voters = min(least, len(places))
    enough = places[voters - 1] + 1 if voters else 0
    given = tuple(steps)
    return tuple(sorted({*(min(max(step, enough), given[-1]) for step in given[:-1]), given[-1]}))
