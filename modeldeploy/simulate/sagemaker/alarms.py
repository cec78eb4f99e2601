"""CloudWatch's alarms: deployments look at them, and those about endpoints are judged by what endpoints did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.errors import invalid
from modeldeploy.simulate.sagemaker.metrics import (
    NAMESPACE,
    Store,
    breaches,
    dimensions_of,
    judged,
    statistic,
)

_MINUTE = 60


@attrs.define(eq=False)
class Alarms:
    """Reads the states of alarms by their names, and sets those about the service's own metrics."""

    cloud: Cloud
    clock: Clock
    store: Store

    def states(self, names: Sequence[str]) -> dict[str, str]:
        """Tell the state of each alarm that there is."""
        if not names:
            return {}
        client = self.cloud.client("cloudwatch")
        answer = client.describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        found = [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]
        return {each["AlarmName"]: each["StateValue"] for each in found}

    def ringing(self, names: Sequence[str]) -> list[str]:
        """Name those in the state ALARM."""
        return sorted(name for name, state in self.states(names).items() if state == "ALARM")

    def check(self, names: Sequence[str]) -> None:
        """Raise the service's refusal when one is not there."""
        missing = sorted(set(names) - set(self.states(names)))
        if missing:
            raise invalid(f"The following alarms do not exist: {', '.join(missing)}.")

    def judge(self) -> None:
        """Judge every alarm about one metric of an endpoint; a minute of its period is a minute of the service."""
        for alarm in self._ours():
            state = self._state(alarm)
            if state is not None and state != alarm["StateValue"]:
                reason = f"Threshold Crossed: {alarm['MetricName']} against {alarm['Threshold']}"
                self.cloud.client("cloudwatch").set_alarm_state(
                    AlarmName=alarm["AlarmName"], StateValue=state, StateReason=reason
                )

    def _ours(self) -> Iterator[Mapping[str, Any]]:
        pages = self.cloud.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm"])
        for page in pages:
            yield from (each for each in page.get("MetricAlarms", []) if each.get("Namespace") == NAMESPACE)

    def _state(self, alarm: Mapping[str, Any]) -> str | None:
        slots = max(1, round(alarm["Period"] / _MINUTE))
        count = int(alarm["EvaluationPeriods"])
        points = self._points(alarm, slots, count)
        breaching = [
            point is not None and breaches(alarm["ComparisonOperator"], point, float(alarm["Threshold"]))
            for point in points
        ]
        return judged(
            points,
            needed=int(alarm.get("DatapointsToAlarm") or count),
            breaching=breaching,
            missing=alarm.get("TreatMissingData") or "missing",
        )

    def _points(self, alarm: Mapping[str, Any], slots: int, count: int) -> list[float | None]:
        """Give the statistic of each of the latest periods, the newest last."""
        now = self.clock.now()
        since = now - self.store.late_s - (slots * count + 2) * self.store.slot_s
        found = self.store.slots(alarm["MetricName"], dimensions_of(alarm.get("Dimensions", [])), now, (since, now))
        last = math.floor((now - self.store.late_s) / self.store.slot_s) - 1
        name = alarm.get("ExtendedStatistic") or alarm["Statistic"]
        points: list[float | None] = []
        for number in range(count - 1, -1, -1):
            end = last - number * slots
            values = sum((found[slot] for slot in range(end - slots + 1, end + 1) if slot in found), Counter())
            points.append(statistic(name, values) if values else None)
        return points
