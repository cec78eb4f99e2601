"""CloudWatch's alarms, as a deployment looks at them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.errors import invalid


@attrs.define(eq=False)
class Alarms:
    """Reads the states of alarms by their names."""

    cloud: Cloud

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
