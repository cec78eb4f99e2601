"""Devices with the IoT Edge runtime: each follows the configuration that it is given, after a while, and reports what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from modeldeploy.simulate.iothub.faults import Faults

Json = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"
AGENT = "$edgeAgent"
_GOOD, _FAILED = 200, 500


def stamp(at: float) -> str:
    """Write a time as the service does."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@attrs.define(eq=False)
class Device:
    """One device: its twin, and the twin of its agent; ``desired`` is the content that the hub gives to it, with its number."""

    id: str
    tags: Json = attrs.field(factory=dict)
    online: bool = True
    edge: bool = True
    etag: int = 1
    given: Json = attrs.field(factory=dict)
    """The manifest that the hub wants here, as the agent's and the modules' desired properties."""
    version: int = 1
    given_at: float = 0.0
    applied: tuple[str, ...] = ()
    """Names the deployment that is applied, and its layers."""
    by_hand: bool = False
    """Whether the manifest was applied to this very device."""
    reported: Json = attrs.field(factory=dict)
    active_at: float = 0.0

    def give(self, content: Json, named: tuple[str, ...], now: float) -> None:
        """Let the hub want this content, if it is another one than before."""
        if named == self.applied and content == self.given:
            return
        self.applied, self.given = named, content
        self.version, self.given_at = self.version + 1, now

    def live(self, now: float, takes: float, faults: Faults) -> None:
        """Do what the runtime does meanwhile: follow what is wanted when ``takes`` seconds have passed, if it can be reached."""
        if not self.online:
            return
        self.active_at = now
        behind = self.reported.get("lastDesiredVersion") != self.version
        if self.given and behind and now >= self.given_at + takes:
            self._follow(now, faults)
        elif not behind:
            self._restart(now, faults)

    def _follow(self, now: float, faults: Faults) -> None:
        agent = self.given["$edgeAgent"]
        missing = [each["settings"]["image"] for each in agent["modules"].values()]
        missing = [image for image in missing if image in faults.missing_images]
        if missing:
            text = f"Error calling Create module: image {missing[0]} could not be pulled"
            self.reported |= {
                "lastDesiredVersion": self.version,
                "lastDesiredStatus": {"code": _FAILED, "description": text},
            }
            return
        modules = {name: self._started(module, now, faults) for name, module in agent["modules"].items()}
        self.reported = {
            "schemaVersion": agent["schemaVersion"],
            "lastDesiredVersion": self.version,
            "lastDesiredStatus": {"code": _GOOD, "description": ""},
            "runtime": {"type": "docker", "platform": {"os": "linux", "architecture": "aarch64", "version": "1.6.0"}},
            "systemModules": {
                name: {**system, "runtimeStatus": "running"} for name, system in agent["systemModules"].items()
            },
            "modules": modules,
        }

    def _restart(self, now: float, faults: Faults) -> None:
        """Let modules end that end by themselves, and those that were mended come up."""
        for name, module in self.reported.get("modules", {}).items():
            ends = faults.ends(self.id, module.get("version", ""))
            if ends != (module["runtimeStatus"] == "backoff"):
                self.reported["modules"][name] = self._started(_wanted_of(module), now, faults)

    def _started(self, module: Mapping[str, Any], now: float, faults: Faults) -> Json:
        ends = faults.ends(self.id, module.get("version", ""))
        return {
            **module,
            "runtimeStatus": "backoff" if ends else "running",
            "exitCode": 1 if ends else 0,
            "statusDescription": "exited (1) less than a second ago" if ends else "running",
            "restartCount": 3 if ends else 0,
            "lastStartTimeUtc": stamp(now),
            "lastExitTimeUtc": stamp(now) if ends else NEVER,
            "lastRestartTimeUtc": stamp(now) if ends else NEVER,
        }

    def running(self) -> dict[str, str]:
        """Tell which version of each module runs now."""
        modules = self.reported.get("modules", {})
        return {name: each.get("version", "") for name, each in modules.items() if each["runtimeStatus"] == "running"}

    def twin(self) -> Json:
        """Write the twin of the device."""
        return {
            "deviceId": self.id,
            "etag": f'"{self.etag}"',
            "status": "enabled",
            "connectionState": self._connection,
            "lastActivityTime": self._active,
            "tags": self.tags,
            "properties": {"desired": {"$version": 1}, "reported": {"$version": 1}},
            "capabilities": {"iotEdge": self.edge},
            "configurations": {name: {"status": "Applied"} for name in self.applied},
        }

    def agent_twin(self) -> Json:
        """Write the twin of its agent."""
        desired = {**json.loads(json.dumps(self.given.get(AGENT, {}))), "$version": self.version}
        return {
            "deviceId": self.id,
            "moduleId": AGENT,
            "etag": f'"{self.version}"',
            "status": "enabled",
            "connectionState": self._connection,
            "lastActivityTime": self._active,
            "properties": {"desired": desired, "reported": {**self.reported, "$version": 1}},
        }

    @property
    def _connection(self) -> str:
        return "Connected" if self.online and self.edge else "Disconnected"

    @property
    def _active(self) -> str:
        return stamp(self.active_at) if self.active_at else NEVER


_SEEN = (
    "runtimeStatus",
    "exitCode",
    "statusDescription",
    "restartCount",
    "lastStartTimeUtc",
    "lastExitTimeUtc",
    "lastRestartTimeUtc",
)


def _wanted_of(module: Mapping[str, Any]) -> Json:
    return {name: value for name, value in module.items() if name not in _SEEN}
