"""The devices of a target, as the hub knows them: their places, what their agents report, and whether they can be reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.iotedge import names
from modeldeploy.backends.iotedge.client import Client
from modeldeploy.backends.iotedge.described import Seen
from modeldeploy.backends.iotedge.manifest import Defaults
from modeldeploy.edge.desired import place
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.serving import WHOLE

Json = Mapping[str, Any]
_MANY = 50
_GOOD = 200
_RUNNING = "running"
_NEVER_YEAR = 1


@attrs.frozen
class Fleet:
    """Reads the devices of targets, and gives them their places."""

    client: Client
    defaults: Defaults
    offline_s: float
    """How long a device may be disconnected before it counts as offline."""

    def twins(self, target: str) -> list[Json]:
        """Read the twins of a target's devices, in the order of their names."""
        members = names.members(self.defaults.devices, target)
        found = self.client.twins("devices", f"capabilities.iotEdge = true AND ({members})")
        return sorted(found, key=lambda twin: str(twin["deviceId"]))

    def placeless(self, target: str) -> Iterator[tuple[str, int]]:
        """Name the devices whose place is not written down yet, or not as it should be, with the place."""
        for twin in self.twins(target):
            at = place(target, twin["deviceId"])
            if _place_of(twin, target) != at:
                yield twin["deviceId"], at

    def placed(self, target: str) -> Iterator[str]:
        """Name every device of the hub in whose twin a place in the target is written."""
        path = f"tags.{names.TAG}.{names.tag(target)}"
        yield from (str(twin["deviceId"]) for twin in self.client.twins("devices", f"is_defined({path})"))

    def write_place(self, device: str, target: str, at: int | None) -> None:
        """Write a device's place into its twin; None takes it away."""
        self.client.tag(device, {names.TAG: {names.tag(target): at}})

    def read(self, seen: Seen, now: float) -> list[Device]:
        """Read every device as it last said it was."""
        twins = self.twins(seen.target)
        agents = self._agents([str(twin["deviceId"]) for twin in twins])
        return [self._device(twin, agents.get(str(twin["deviceId"]), {}), seen, now) for twin in twins]

    def _agents(self, devices: Sequence[str]) -> dict[str, Json]:
        # The query language has no way to quote a quote.
        plain = [name for name in devices if "'" not in name]
        found: dict[str, Json] = {name: self.client.agent(name) for name in devices if "'" in name}
        for at in range(0, len(plain), _MANY):
            listed = ", ".join(f"'{name}'" for name in plain[at : at + _MANY])
            asked = f"moduleId = '$edgeAgent' AND deviceId IN [{listed}]"
            found |= {str(twin["deviceId"]): twin for twin in self.client.twins("devices.modules", asked)}
        return found

    def _device(self, twin: Json, agent: Json, seen: Seen, now: float) -> Device:
        at = place(seen.target, str(twin["deviceId"]))
        known = _place_of(twin, seen.target)
        # A device that came later is given what is for all places, until the next change gives it its own.
        wanted = rings.wanted(seen.ranked, WHOLE - 1 if known is None else known)
        said = Said.of(agent, self.defaults.module_of(seen.target), wanted)
        health, note = self._health(said, wanted, agent, now)
        return Device(
            id=str(twin["deviceId"]),
            ring=at,
            revision=said.running,
            wanted=wanted,
            health=health,
            seen=said.heard(agent),
            note=note,
            sequence=int(said.reported.get("lastDesiredVersion") or 0),
        )

    def _health(self, said: Said, wanted: str | None, agent: Json, now: float) -> tuple[DeviceHealth, str]:
        if said.failure:
            return DeviceHealth.FAILED, said.failure
        if self._offline(agent, now):
            return DeviceHealth.OFFLINE, "its edge agent is not connected"
        if wanted is None or said.running == wanted:
            return DeviceHealth.OK, ""
        return DeviceHealth.PENDING, "its edge agent has not followed yet"

    def _offline(self, agent: Json, now: float) -> bool:
        if agent.get("connectionState") == "Connected":
            return False
        heard = _time(agent.get("lastActivityTime"))
        return heard is None or now - heard >= self.offline_s


@attrs.frozen
class Said:
    """What an edge agent reports of one module."""

    reported: Json
    running: str | None
    """The revision that runs; None when nothing does."""
    failure: str
    """Why the revision that is wanted is not well, in the agent's words; empty when nothing of the kind was said."""

    module: Json
    """What it reports of the module."""

    def heard(self, agent: Json) -> float | None:
        """Say when the agent was last heard of: by its connection, by its report, or by the module's last end that it tells of."""
        written = (self.reported.get("$metadata") or {}).get("$lastUpdated")
        found = [_time(each) for each in (agent.get("lastActivityTime"), written, self.module.get("lastExitTimeUtc"))]
        return max((each for each in found if each is not None), default=None)

    @classmethod
    def of(cls, agent: Json, module: str, wanted: str | None) -> Said:
        """Read the twin of an agent."""
        properties = agent.get("properties") or {}
        reported = properties.get("reported") or {}
        found = (reported.get("modules") or {}).get(module) or {}
        status, version = str(found.get("runtimeStatus", "")), found.get("version") or None
        running = version if status == _RUNNING else None
        ill = bool(version) and version == wanted and status != _RUNNING
        said = f"{status}: {found.get('statusDescription', '')} (exit code {found.get('exitCode')})" if ill else ""
        return cls(reported, running, said or _refusal(properties, module, wanted), found)


def _refusal(properties: Json, module: str, wanted: str | None) -> str:
    """Say why the agent could not follow, when what it could not follow is the very revision that is wanted."""
    desired, reported = properties.get("desired") or {}, properties.get("reported") or {}
    told = ((desired.get("modules") or {}).get(module) or {}).get("version")
    status = reported.get("lastDesiredStatus") or {}
    current = reported.get("lastDesiredVersion") == desired.get("$version")
    if wanted is None or told != wanted or not current or int(status.get("code") or _GOOD) < 400:  # noqa: PLR2004 - as HTTP's
        return ""
    return str(status.get("description") or f"the edge agent could not follow ({status['code']})")


def _place_of(twin: Json, target: str) -> int | None:
    found = ((twin.get("tags") or {}).get(names.TAG) or {}).get(names.tag(target))
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _time(text: Any) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.timestamp() if found.year > _NEVER_YEAR else None
