"""The devices of a target, as the account knows them: their places, their groups, and what came of their deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.greengrass import names
from modeldeploy.backends.greengrass.client import Client
from modeldeploy.backends.greengrass.described import Group, Seen
from modeldeploy.edge.desired import place
from modeldeploy.errors import NotFoundError
from modeldeploy.values.edge import Device, DeviceHealth

Json = Mapping[str, Any]
_RUNNING = frozenset({"RUNNING", "FINISHED"})
_ILL = frozenset({"ERRORED", "BROKEN"})
_NO = frozenset({"FAILED", "TIMED_OUT", "REJECTED", "CANCELED"})
_STOPPED = "the service stopped the deployment before it reached the device"
_GONE = frozenset({"CANCELED", "FAILED", "INACTIVE"})


@attrs.frozen
class Move:
    """A device that is in another group than it should be."""

    thing: str
    to: str
    out_of: tuple[str, ...]


@attrs.frozen
class Fleet:
    """Reads the devices of targets, and moves them between groups."""

    client: Client
    fleet_group: str
    """The name of the thing group whose things are a target's devices, with ``{target}``."""
    offline_s: float
    """How long a deployment may wait for a device before the device counts as offline."""

    def things(self, target: str) -> list[str]:
        """Name the things of a target, sorted."""
        return sorted(self._members(self.fleet_group.replace("{target}", target)))

    def _members(self, group: str) -> Iterator[str]:
        yield from self.client.pages("iot", "list_things_in_thing_group", "things", thingGroupName=group, recursive=True)

    def moves(self, seen: Seen) -> Iterator[Move]:
        """List what has to be moved so that every device is in the group of the revision that it should run."""
        inside = {group.name: set(self._members(group.name)) for group in seen.groups}
        for thing in self.things(seen.target):
            wanted = rings.wanted(seen.ranked, place(seen.target, thing))
            to = names.group(seen.target, wanted) if wanted else ""
            others = tuple(name for name, things in inside.items() if thing in things and name != to)
            if others or (to and thing not in inside[to]):
                yield Move(thing, to, others)

    def move(self, move: Move) -> None:
        """Move a device, in one call; doing it again changes nothing."""
        self.client.iot(
            "update_thing_groups_for_thing",
            thingName=move.thing,
            thingGroupsToAdd=[move.to] if move.to else [],
            thingGroupsToRemove=list(move.out_of),
        )

    def read(self, seen: Seen, now: float) -> list[Device]:
        """Read every device as the account last heard of it."""
        wanted: dict[str, Group] = {}
        for group in reversed(seen.groups):
            wanted |= dict.fromkeys(self._members(group.name), group)
        stopped = {group.name for group in seen.groups if self._is_stopped(group)}
        return [self._device(thing, seen, wanted.get(thing), stopped, now) for thing in self.things(seen.target)]

    def _is_stopped(self, group: Group) -> bool:
        found = self.client.find("greengrassv2", "get_deployment", deploymentId=group.deployment) if group.deployment else None
        return found is not None and found["deploymentStatus"] in _GONE

    def _device(self, thing: str, seen: Seen, wanted: Group | None, stopped: set[str], now: float) -> Device:
        try:
            said = self._said(thing, seen)
        except NotFoundError:
            health = DeviceHealth.OFFLINE if wanted else DeviceHealth.OK
            name = wanted.revision if wanted else None
            return Device(thing, place(seen.target, thing), None, name, health, note="it has not been set up as a core device")
        at_once = wanted is not None and wanted.name in stopped
        health, note = _health(said, wanted, stopped=at_once, offline_s=self.offline_s, now=now)
        return Device(
            id=thing,
            ring=place(seen.target, thing),
            revision=said.running,
            wanted=wanted.revision if wanted else None,
            health=health,
            seen=said.heard,
            note=note,
        )

    def _said(self, thing: str, seen: Seen) -> Said:
        deployments = self.client.pages(
            "greengrassv2", "list_effective_deployments", "effectiveDeployments", coreDeviceThingName=thing
        )
        executions = {each["deploymentId"]: each for each in deployments}
        installed = self.client.pages(
            "greengrassv2", "list_installed_components", "installedComponents", coreDeviceThingName=thing
        )
        own = next((each for each in installed if each["componentName"] == names.component(seen.target)), {})
        return Said.of(own, executions, {group.component: group.revision for group in seen.groups})


@attrs.frozen
class Said:
    """What the account knows of one device."""

    running: str | None
    """The revision that runs; None when nothing does."""
    installed: str | None
    """The revision that is installed, whether it runs or not."""
    state: str
    executions: Mapping[str, Json]
    """What came of its deployments, by their ids."""
    heard: float | None

    @classmethod
    def of(cls, own: Json, executions: Mapping[str, Json], revisions: Mapping[str, str]) -> Said:
        """Read the component of ours that is installed, and the deployments."""
        state = str(own.get("lifecycleState", ""))
        installed = revisions.get(str(own.get("componentVersion"))) if own else None
        times = [_time(own.get("lastStatusChangeTimestamp"))]
        times += [_time(each["modifiedTimestamp"]) for each in executions.values() if each["coreDeviceExecutionStatus"] != "QUEUED"]
        known = [each for each in times if each is not None]
        return cls(installed if state in _RUNNING else None, installed, state, executions, max(known, default=None))


def _health(said: Said, wanted: Group | None, *, stopped: bool, offline_s: float, now: float) -> tuple[DeviceHealth, str]:
    if wanted is None:
        return DeviceHealth.OK, ""
    execution = said.executions.get(wanted.deployment, {})
    status = str(execution.get("coreDeviceExecutionStatus", ""))
    if status in _NO:
        return DeviceHealth.FAILED, str(execution.get("reason") or f"its deployment is {status}")
    if said.installed == wanted.revision and said.state in _ILL:
        return DeviceHealth.FAILED, f"its component is {said.state}"
    if said.running == wanted.revision:
        return DeviceHealth.OK, ""
    if stopped and not status:
        return DeviceHealth.FAILED, _STOPPED
    queued = _time(execution.get("modifiedTimestamp")) if status == "QUEUED" else None
    if queued is not None and now - queued >= offline_s:
        return DeviceHealth.OFFLINE, "it has not taken its deployment from the queue"
    return DeviceHealth.PENDING, f"its deployment is {status or 'not queued yet'}"


def _time(found: Any) -> float | None:
    return found.timestamp() if isinstance(found, datetime) else None
