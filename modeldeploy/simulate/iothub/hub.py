"""One hub: its devices and configurations, and which of these each device is given."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.iothub import query, schema
from modeldeploy.simulate.iothub.devices import AGENT, Device, Json, stamp
from modeldeploy.simulate.iothub.errors import ServiceError, not_found
from modeldeploy.simulate.iothub.faults import Faults

MOST_CONFIGURATIONS = 100
"""Of a hub of the standard tier."""
_ID = re.compile(r"[a-z0-9\-+%_*!']{1,128}")
_LABEL = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;']{1,128}")
_MEMBERS = frozenset(
    {"id", "schemaVersion", "labels", "content", "targetCondition", "priority", "metrics", "etag", "systemMetrics", "createdTimeUtc", "lastUpdatedTimeUtc"}
)  # fmt: skip
_CHANGED: tuple[str, ...] = ("labels", "targetCondition", "priority", "metrics")
_UNCHANGING = "Configuration content cannot be updated."


@attrs.frozen
class Timings:
    """How long the service and the devices take, in seconds of the service."""

    evaluate: float = 60.0
    """How often target conditions are held against the twins."""
    apply: float = 30.0
    """How long a device takes to pull an image and start it."""


@attrs.define(eq=False)
class Hub:
    """All that a hub holds; its time goes on whenever it is asked."""

    clock: Clock
    faults: Faults
    timings: Timings
    manual: bool = False
    """Whether devices act when ``act`` is called, and at no other time."""
    devices: dict[str, Device] = attrs.field(factory=dict)
    configurations: dict[str, Json] = attrs.field(factory=dict)
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    _evaluated: float = 0.0
    _etags: int = 0

    def add(self, device: Device) -> None:
        """Register a device."""
        with self.lock:
            device.active_at = self.clock.now()
            self.devices[device.id] = device

    def go_on(self) -> None:
        """Let pass what has passed since the last look."""
        if self.manual:
            return
        now = self.clock.now()
        if self._evaluated == 0.0 or now >= self._evaluated + self._span(self.timings.evaluate):
            self._evaluated = now
            for device in self.devices.values():
                self._assign(device, now)
        for device in self.devices.values():
            device.live(now, self._span(self.timings.apply), self.faults)

    def act(self) -> None:
        """Let the hub evaluate all conditions now, and every device that can be reached follow at once."""
        now = self.clock.now()
        for device in self.devices.values():
            self._assign(device, now)
            device.live(now, 0.0, self.faults)

    def _span(self, seconds: float) -> float:
        return self.clock.after(seconds) - self.clock.now()

    # Which deployment a device is given

    def _assign(self, device: Device, now: float) -> None:
        aimed = [each for each in self.configurations.values() if self._aims(each, device)]
        whole = [each for each in aimed if not schema.is_layer(each["content"])]
        if not whole:
            # As the service: what no deployment aims at any more keeps what it has.
            return
        base = max(whole, key=_rank)
        layers = sorted((each for each in aimed if schema.is_layer(each["content"])), key=_rank)
        layers = [each for each in layers if each["priority"] > base["priority"]]
        device.by_hand = False
        device.give(_merged(base, layers), tuple(each["id"] for each in (base, *layers)), now)

    @staticmethod
    def _aims(configuration: Json, device: Device) -> bool:
        return device.edge and query.condition(configuration["targetCondition"])(device.twin())

    # Configurations

    def put(self, name: str, body: Json, match: str | None) -> Json:
        """Make a configuration, or change what may be changed of one."""
        _check(name, body)
        found = self.configurations.get(name)
        if found is None:
            return self._make(name, body, match)
        if match is None:
            raise ServiceError(409, "ConfigurationAlreadyExists", f"Configuration {name} already exists.")
        if match not in {"*", found["etag"]}:
            raise ServiceError(412, "PreconditionFailed", "Precondition failed: the ETag has changed.")
        if body.get("content", found["content"]) != found["content"]:
            raise ServiceError(400, "ArgumentInvalid", _UNCHANGING)
        changed = {key: body[key] for key in _CHANGED if key in body}
        self.configurations[name] = {
            **found,
            **changed,
            "etag": self._etag(),
            "lastUpdatedTimeUtc": stamp(self.clock.now()),
        }
        return self.shown(name)

    def _make(self, name: str, body: Json, match: str | None) -> Json:
        if match is not None:
            raise not_found("Configuration", name)
        if len(self.configurations) >= MOST_CONFIGURATIONS:
            raise ServiceError(403, "IotHubQuotaExceeded", f"A hub has at most {MOST_CONFIGURATIONS} configurations.")
        now = stamp(self.clock.now())
        kept = {key: copy.deepcopy(body[key]) for key in (*_CHANGED, "content") if key in body}
        self.configurations[name] = {
            "schemaVersion": "1.0", "labels": {}, "metrics": {"queries": {}}, **kept,
            "id": name, "etag": self._etag(), "createdTimeUtc": now, "lastUpdatedTimeUtc": now,
        }  # fmt: skip
        return self.shown(name)

    def delete(self, name: str, match: str | None) -> None:
        """Delete a configuration."""
        found = self.configurations.get(name)
        if found is None:
            raise not_found("Configuration", name)
        if match not in {None, "*", found["etag"]}:
            raise ServiceError(412, "PreconditionFailed", "Precondition failed: the ETag has changed.")
        del self.configurations[name]

    def shown(self, name: str) -> Json:
        """Write a configuration as it is read, with the service's own metrics."""
        found = self.configurations.get(name)
        if found is None:
            raise not_found("Configuration", name)
        applied = [each for each in self.devices.values() if name in each.applied]
        targeted = [each for each in self.devices.values() if self._aims(found, each)]
        done = [each for each in applied if each.reported.get("lastDesiredVersion") == each.version]
        failed = [each for each in done if set(each.given[AGENT]["modules"]) - set(each.running())]
        results = {
            "targetedCount": len(targeted),
            "appliedCount": len(applied),
            "reportedSuccessfulCount": len(done) - len(failed),
            "reportedFailedCount": len(failed),
        }
        return {**copy.deepcopy(found), "systemMetrics": {"results": results, "queries": {}}}

    def _etag(self) -> str:
        self._etags += 1
        return f'"{self._etags:08x}"'

    # Twins

    def tag(self, name: str, tags: Mapping[str, Any]) -> Json:
        """Merge tags into a twin; None takes one away."""
        device = self.device(name)
        device.tags = _patched(device.tags, tags)
        device.etag += 1
        return device.twin()

    def device(self, name: str) -> Device:
        """Find a device."""
        found = self.devices.get(name)
        if found is None:
            raise not_found("Device", name)
        return found

    def apply(self, name: str, content: Json) -> None:
        """Give a manifest to one device."""
        _check_content(content)
        device = self.device(name)
        if not device.edge:
            raise ServiceError(400, "ArgumentInvalid", f"Device {name} is not an edge device.")
        device.by_hand = True
        device.give(_merged({"content": content}, ()), (), self.clock.now())

    def list(self, text: str) -> list[Json]:
        """Answer a query."""
        asked = query.select(text)
        devices = self.devices.values()
        twins = (
            [each.twin() for each in devices]
            if asked.source == query.DEVICES
            else [each.agent_twin() for each in devices if each.edge]
        )
        return [twin for twin in twins if asked.holds(twin)]


def _rank(configuration: Json) -> tuple[int, str]:
    return configuration["priority"], configuration["createdTimeUtc"]


def _merged(base: Json, layers: Any) -> Json:
    found = {
        name: copy.deepcopy(part["properties.desired"]) for name, part in base["content"]["modulesContent"].items()
    }
    for layer in layers:
        for name, part in layer["content"]["modulesContent"].items():
            for key, value in part.items():
                _set(found.setdefault(name, {}), key.split(".")[2:], value)
    return found


def _set(into: Json, path: list[str], value: Any) -> None:
    if not path:
        into.clear()
        into.update(copy.deepcopy(value))
        return
    for name in path[:-1]:
        into = into.setdefault(name, {})
    into[path[-1]] = copy.deepcopy(value)


def _patched(found: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    merged = dict(found)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            inner = merged.get(key)
            merged[key] = _patched(inner if isinstance(inner, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _check(name: str, body: Json) -> None:
    problem = next(_problems(name, body), None)
    if problem:
        raise ServiceError(400, "ArgumentInvalid", problem)
    query.condition(body["targetCondition"])
    for text in body.get("metrics", {}).get("queries", {}).values():
        query.select(text)
    if "content" in body:
        _check_content(body["content"])


def _problems(name: str, body: Json) -> Any:
    if not _ID.fullmatch(name) or body.get("id", name) != name:
        yield f"{name!r} is not an id of a configuration."
    unknown = sorted(set(body) - _MEMBERS)
    if unknown:
        yield f"A configuration has no members {unknown}."
    priority = body.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or priority < 0:
        yield f"priority is {priority!r}."
    if not isinstance(body.get("targetCondition"), str):
        yield "targetCondition is missing."
    for key, value in body.get("labels", {}).items():
        if not (_LABEL.fullmatch(key) and isinstance(value, str) and _LABEL.fullmatch(value)):
            yield f"label {key!r} is {value!r}."


def _check_content(content: Json) -> None:
    found = schema.faults(content)
    if found:
        raise ServiceError(400, "ArgumentInvalid", f"The manifest has {len(found)} faults: {'; '.join(found)}")
