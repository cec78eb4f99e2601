"""The devices of a target, as the account knows them: their places, their groups, and what came of their deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.greengrass import names
from modeldeploy.backends.greengrass.client import Client
from modeldeploy.backends.greengrass.described import NOTHING, Group, Seen
from modeldeploy.edge.desired import place
from modeldeploy.errors import NotFoundError
from modeldeploy.values.edge import Device, DeviceHealth

Json = Mapping[str, Any]
_RUNNING = frozenset({"RUNNING", "FINISHED"})
_ILL = frozenset({"ERRORED", "BROKEN"})
_NO = frozenset({"FAILED", "TIMED_OUT", "REJECTED", "CANCELED"})
_HEARD = frozenset({"IN_PROGRESS", "SUCCEEDED", "COMPLETED", "FAILED", "REJECTED"})
"""What the device itself said; the other states are the service's."""
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
    silent_s: float
    """After how long without a word a device counts as offline though nothing waits for it."""

    def things(self, target: str) -> list[str]:
        """Name the things of a target, sorted; none while its group is not there, for devices may come later."""
        try:
            return sorted(self._members(self.fleet_group.replace("{target}", target)))
        except NotFoundError:
            return []

    def _members(self, group: str) -> Iterator[str]:
        yield from self.client.pages(
            "iot", "list_things_in_thing_group", "things", thingGroupName=group, recursive=True
        )

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
        cores, found = self._cores(), []
        for thing in self.things(seen.target):
            goal = wanted.get(thing)
            if thing not in cores:
                found.append(self._unknown(thing, seen.target, goal))
                continue
            said = self._said(thing, seen, cores[thing])
            at_once = goal is not None and goal.name in stopped
            found.append(self._device(thing, seen, said, goal, self._health(said, goal, stopped=at_once, now=now)))
        return found

    def _health(self, said: Said, wanted: Group | None, *, stopped: bool, now: float) -> tuple[DeviceHealth, str]:
        failure = said.failure(wanted, stopped=stopped)
        if failure:
            return DeviceHealth.FAILED, failure
        queued = said.queued(wanted)
        if queued is not None and now - queued >= self.offline_s:
            return DeviceHealth.OFFLINE, "it has not taken its deployment from the queue"
        if said.heard is None or now - said.heard >= self.silent_s:
            return DeviceHealth.OFFLINE, "it has not told its state for too long"
        if wanted is None or said.running == wanted.revision:
            return DeviceHealth.OK, ""
        return DeviceHealth.PENDING, f"its deployment is {said.status(wanted) or 'not queued yet'}"

    def _is_stopped(self, group: Group) -> bool:
        if group.deployment == NOTHING:
            return False
        found = self.client.find("greengrassv2", "get_deployment", deploymentId=group.deployment)
        return found is not None and found["deploymentStatus"] in _GONE

    def _cores(self) -> dict[str, float | None]:
        """Name every core device of the account, and when it last told its state."""
        listed = self.client.pages("greengrassv2", "list_core_devices", "coreDevices")
        return {each["coreDeviceThingName"]: _time(each.get("lastStatusUpdateTimestamp")) for each in listed}

    def _unknown(self, thing: str, target: str, wanted: Group | None) -> Device:
        name = wanted.revision if wanted else None
        note = "it has not been set up as a core device"
        return Device(thing, place(target, thing), None, name, DeviceHealth.OFFLINE, note=note)

    def _said(self, thing: str, seen: Seen, told: float | None) -> Said:
        deployments = self.client.pages(
            "greengrassv2", "list_effective_deployments", "effectiveDeployments", coreDeviceThingName=thing
        )
        executions = {each["deploymentId"]: each for each in deployments}
        installed = self.client.pages(
            "greengrassv2", "list_installed_components", "installedComponents", coreDeviceThingName=thing
        )
        own: Json = next((each for each in installed if each["componentName"] == names.component(seen.target)), {})
        return Said.of(own, executions, {group.component: group.revision for group in seen.groups}, told)

    def _device(
        self, thing: str, seen: Seen, said: Said, wanted: Group | None, health: tuple[DeviceHealth, str]
    ) -> Device:
        return Device(
            id=thing,
            ring=place(seen.target, thing),
            revision=said.running,
            wanted=wanted.revision if wanted else None,
            health=health[0],
            seen=said.heard,
            note=health[1],
        )


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
    def of(cls, own: Json, executions: Mapping[str, Json], revisions: Mapping[str, str], told: float | None) -> Said:
        """Read the component of ours that is installed, and the deployments; ``told`` is when the device told its state."""
        state = str(own.get("lifecycleState", ""))
        installed = revisions.get(str(own.get("componentVersion"))) if own else None
        words = [each for each in executions.values() if each["coreDeviceExecutionStatus"] in _HEARD]
        times = [
            told,
            _time(own.get("lastStatusChangeTimestamp")),
            *(_time(each["modifiedTimestamp"]) for each in words),
        ]
        heard = max((each for each in times if each is not None), default=None)
        return cls(installed if state in _RUNNING else None, installed, state, executions, heard)

    def _execution(self, wanted: Group | None) -> Json:
        return self.executions.get(wanted.deployment, {}) if wanted else {}

    def status(self, wanted: Group | None) -> str:
        """Say how far the deployment of the revision that is wanted is on the device; empty when it is not queued."""
        return str(self._execution(wanted).get("coreDeviceExecutionStatus", ""))

    def queued(self, wanted: Group | None) -> float | None:
        """Say since when that deployment waits for the device; None when it does not."""
        return _time(self._execution(wanted).get("modifiedTimestamp")) if self.status(wanted) == "QUEUED" else None

    def failure(self, wanted: Group | None, *, stopped: bool) -> str:
        """Say why the revision that is wanted is not well there; empty when nothing of the kind is known."""
        if wanted is None:
            return ""
        status = self.status(wanted)
        if status in _NO:
            return str(self._execution(wanted).get("reason") or f"its deployment is {status}")
        if self.installed == wanted.revision and self.state in _ILL:
            return f"its component is {self.state}"
        behind = self.running != wanted.revision and not status
        return _STOPPED if stopped and behind else ""


def _time(found: Any) -> float | None:
    return found.timestamp() if isinstance(found, datetime) else None
