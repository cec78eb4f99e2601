"""How traffic moves to a new fleet: the steps of a deployment's policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from modeldeploy.simulate.sagemaker.errors import invalid
from modeldeploy.simulate.sagemaker.world import Json

_WHOLE = 100


@attrs.frozen
class Step:
    """So many percent of the traffic for the new fleet, then so many seconds to bake."""

    percent: float
    bake_s: float


def steps(policy: Json | None, instances: int) -> Iterator[Step]:
    """Give the steps of a policy; all at once without one. The last step's seconds end with the old fleet."""
    policy = policy or {}
    if "RollingUpdatePolicy" in policy:
        yield from _rolling(policy["RollingUpdatePolicy"], instances)
        return
    blue_green = policy.get("BlueGreenUpdatePolicy", {})
    routing = blue_green.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0})
    yield from _shifts(routing, instances)
    yield Step(_WHOLE, blue_green.get("TerminationWaitInSeconds", 0))


def _shifts(routing: Json, instances: int) -> Iterator[Step]:
    pause = routing["WaitIntervalInSeconds"]
    if routing["Type"] == "CANARY":
        yield Step(_percent(routing["CanarySize"], instances), pause)
    elif routing["Type"] == "LINEAR":
        yield from _even(_percent(routing["LinearStepSize"], instances), pause)


def _rolling(rolling: Json, instances: int) -> Iterator[Step]:
    pause = rolling["WaitIntervalInSeconds"]
    yield from _even(_percent(rolling["MaximumBatchSize"], instances), pause)
    yield Step(_WHOLE, pause)


def _even(size: float, pause: float) -> Iterator[Step]:
    share = size
    while share < _WHOLE:
        yield Step(share, pause)
        share += size


def _percent(size: Mapping[str, Any], instances: int) -> float:
    if size["Type"] == "CAPACITY_PERCENT":
        return float(size["Value"])
    return min(100.0, 100.0 * int(size["Value"]) / instances)


def alarms(policy: Json | None) -> list[str]:
    """Name the alarms that roll a deployment back."""
    found = (policy or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    return [each["AlarmName"] for each in found]


def patience(policy: Json | None) -> float:
    """Tell how long a deployment may take."""
    for kind in ("BlueGreenUpdatePolicy", "RollingUpdatePolicy"):
        settings = (policy or {}).get(kind, {})
        if "MaximumExecutionTimeoutInSeconds" in settings:
            return float(settings["MaximumExecutionTimeoutInSeconds"])
    return float("inf")


def check(policy: Json, variants: int, instances: int, *, serverless: bool) -> None:
    """Raise the service's refusal of a policy that its limits do not allow for this endpoint."""
    if "BlueGreenUpdatePolicy" in policy and "RollingUpdatePolicy" in policy:
        raise invalid("Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy can be specified.")
    if "RollingUpdatePolicy" in policy:
        if variants > 1 or serverless:
            raise invalid("RollingUpdatePolicy is not supported for serverless or multi-variant endpoints.")
        _check_size("MaximumBatchSize", policy["RollingUpdatePolicy"]["MaximumBatchSize"], instances, least=5)
        return
    routing = policy.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration")
    if routing is not None:
        _check_routing(routing, instances)


def _check_routing(routing: Json, instances: int) -> None:
    for kind, member, least in (("CANARY", "CanarySize", 1), ("LINEAR", "LinearStepSize", 10)):
        if routing["Type"] == kind:
            if member not in routing:
                raise invalid(f"{member} is required for traffic routing of type {kind}.")
            _check_size(member, routing[member], instances, least=least)
        elif member in routing:
            raise invalid(f"{member} is not allowed for traffic routing of type {routing['Type']}.")


def _check_size(member: str, size: Json, instances: int, *, least: int) -> None:
    percent = _percent(size, instances)
    # One instance cannot be cut into pieces; the limits of a size are about what is more than that.
    if size["Type"] == "CAPACITY_PERCENT" and not least <= percent <= _WHOLE / 2:
        raise invalid(f"{member} must be between {least}% and 50% of the variant's total capacity.")
    if size["Type"] == "INSTANCE_COUNT" and percent > _WHOLE / 2 and int(size["Value"]) > 1:
        raise invalid(f"{member} must be at most 50% of the variant's total instance count.")
