"""Autoscale settings of Azure Monitor: kept and checked, not acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from modeldeploy.simulate.azureml.durations import seconds
from modeldeploy.simulate.azureml.errors import ServiceError
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.world import World

_MOST_PROFILES = 20
_OPERATORS = frozenset({"Equals", "NotEquals", "GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"})
_TRIGGER = (
    "metricName",
    "metricResourceUri",
    "timeGrain",
    "statistic",
    "timeWindow",
    "timeAggregation",
    "operator",
    "threshold",
)
_ACTION = ("direction", "type", "cooldown")


@attrs.define(eq=False)
class Autoscale:
    """The settings of the resource group, by their names."""

    world: World
    exists: Callable[[str], bool]
    """Whether a deployment of this id is there."""
    _settings: dict[str, Json] = attrs.field(factory=dict)

    def put(self, request: Request, name: str) -> Answer:
        """Keep a setting."""
        asked = request.json()
        self._check(asked)
        with self.world.lock:
            fresh = name.lower() not in self._settings
            told = self._told(name, asked)
            self._settings[name.lower()] = told
        return answer(201 if fresh else 200, told)

    def _told(self, name: str, asked: Json) -> Json:
        properties = {"enabled": True, "notifications": [], **asked["properties"], "name": name}
        return {
            "id": f"{self.world.site.group}/providers/microsoft.insights/autoscalesettings/{name}",
            "name": name,
            "type": "Microsoft.Insights/autoscaleSettings",
            "location": asked["location"],
            "tags": asked.get("tags") or {},
            "properties": properties,
        }

    def show(self, _request: Request, name: str) -> Answer:
        """Answer a setting."""
        with self.world.lock:
            found = self._settings.get(name.lower())
        if found is None:
            raise ServiceError(
                404, "ResourceNotFound", f"The Resource 'microsoft.insights/autoscalesettings/{name}' was not found."
            )
        return answer(200, found)

    def page(self, _request: Request) -> Answer:
        """Answer all settings."""
        with self.world.lock:
            return answer(200, {"value": list(self._settings.values())})

    def delete(self, _request: Request, name: str) -> Answer:
        """Delete a setting; 204 when there is none."""
        with self.world.lock:
            found = self._settings.pop(name.lower(), None)
        return Answer(204 if found is None else 200)

    def _check(self, asked: Json) -> None:
        properties = asked.get("properties") or {}
        if not asked.get("location") or not properties.get("profiles"):
            raise _bad("An autoscale setting needs a location and at least one profile.")
        target = str(properties.get("targetResourceUri", ""))
        if not self.exists(target):
            raise _bad(f"The target resource {target} does not exist.")
        profiles: Sequence[Json] = properties["profiles"]
        names = [each.get("name") for each in profiles]
        if len(profiles) > _MOST_PROFILES or len(set(names)) < len(names) or not all(names):
            raise _bad("An autoscale setting has up to 20 profiles, each with a name of its own.")
        for each in profiles:
            _check_profile(each)


def _check_profile(profile: Json) -> None:
    capacity: Mapping[str, object] = profile.get("capacity") or {}
    try:
        least, usual, most = (int(str(capacity[name])) for name in ("minimum", "default", "maximum"))
    except (KeyError, ValueError) as error:
        message = f"The capacity of the profile {profile['name']} needs a minimum, a maximum and a default."
        raise _bad(message) from error
    if not 0 <= least <= usual <= most or not all(isinstance(each, str) for each in capacity.values()):
        raise _bad(f"The capacity of the profile {profile['name']} is not valid.")
    if profile.get("fixedDate") and profile.get("recurrence"):
        raise _bad(f"The profile {profile['name']} has a fixed date and a recurrence.")
    for rule in profile.get("rules") or []:
        _check_rule(profile["name"], rule)


def _check_rule(profile: str, rule: Json) -> None:
    trigger, action = rule.get("metricTrigger") or {}, rule.get("scaleAction") or {}
    missing = [each for each in _TRIGGER if each not in trigger] + [each for each in _ACTION if each not in action]
    if missing:
        raise _bad(f"A rule of the profile {profile} lacks {', '.join(missing)}.")
    if trigger["operator"] not in _OPERATORS:
        raise _bad(f"{trigger['operator']} is not an operator of a rule.")
    for text in (trigger["timeGrain"], trigger["timeWindow"], action["cooldown"]):
        seconds(str(text))


def _bad(message: str) -> ServiceError:
    return ServiceError(400, "BadRequest", message)
