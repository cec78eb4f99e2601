"""The provider's own guard: blue/green with a canary or in steps, taken back by alarms without any process of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.capabilities import CAPABILITIES
from modeldeploy.backends.sagemaker.options import SageMakerOptions
from modeldeploy.errors import ConfigurationError, UnsupportedError
from modeldeploy.values.serving import Revision

_MOST_ALARMS = 10
_MOST_WAIT_S = 3_600
_UNGUARDED = ("ml.inf1.",)
"""Instances for which the service says that it guards and switches all at once."""

GUARDED = attrs.evolve(
    CAPABILITIES,
    split=1,
    shadow=None,
    pinned_invoke=False,
    meters=False,
    logs=False,
    server_side_guard=True,
    why_not={
        **{
            key: why for key, why in CAPABILITIES.why_not.items() if key not in {"server_side_guard", "meters_by_share"}
        },
        "split": "the service moves the traffic by itself while it watches its alarms; make the backend without guard= to hold a split",
        "shadow": "a guarded endpoint has one variant; make the backend without guard=",
        "pinned_invoke": "a guarded endpoint has one variant, and both fleets answer under its name while it moves",
        "meters": "the service watches the alarms of the guard; make the backend without guard= for gates of ours",
        "logs": "both fleets write under the one variant's name; read the log group /aws/sagemaker/Endpoints/NAME",
    },
)
"""What a backend with a guard can do: revisions wait as Models, and traffic goes from one to the next as a whole."""


def _names(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


@attrs.frozen
class ServerGuard:
    """How SageMaker moves all traffic to another revision, and what makes it go back by itself.

    ``alarms`` are names of CloudWatch alarms that exist; they must watch the *new* fleet. ``max_errors`` makes one that does: it rings when
    the new fleet answers so many requests of a minute with 5xx. Metrics come by the minute, so bake for three at least.
    """

    alarms: tuple[str, ...] = attrs.field(default=(), converter=_names)
    max_errors: int = 0
    """0: no alarm of our own."""
    canary_percent: int = 0
    """Share of the first step, 1 to 50; then all the rest. 0: no canary."""
    linear_percent: int = 0
    """Share of each of equal steps, 10 to 50. 0: no steps."""
    wait_s: int = 300
    """Between the steps, 0 to 3600."""
    bake_s: int = 300
    """How long the old fleet is kept when the new one has all traffic, 0 to 3600."""

    def __attrs_post_init__(self) -> None:
        _check("canary_percent", self.canary_percent, 1, 50, off=0)
        _check("linear_percent", self.linear_percent, 10, 50, off=0)
        _check("wait_s", self.wait_s, 0, _MOST_WAIT_S)
        _check("bake_s", self.bake_s, 0, _MOST_WAIT_S)
        _check("max_errors", self.max_errors, 0, 1_000_000)
        if self.canary_percent and self.linear_percent:
            message = "a guard has canary_percent and linear_percent"
            raise ConfigurationError(message, hint="give one of them, or none to switch all at once")
        if not (self.alarms or self.max_errors) or len(self.alarms) + bool(self.max_errors) > _MOST_ALARMS:
            message = f"a guard has {len(self.alarms)} alarms and max_errors={self.max_errors}"
            raise ConfigurationError(
                message, hint=f"give 1 to {_MOST_ALARMS} alarms=, or max_errors=: nothing would ring otherwise"
            )

    def deployment(self, config: str) -> dict[str, Any]:
        """Write the DeploymentConfig of an update to a configuration."""
        alarms = [*self.alarms, *([alarm_name(config)] if self.max_errors else [])]
        return {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": self._routing(),
                "TerminationWaitInSeconds": self.bake_s,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
        }

    def _routing(self) -> dict[str, Any]:
        if self.canary_percent:
            return {"Type": "CANARY", "CanarySize": _share(self.canary_percent), "WaitIntervalInSeconds": self.wait_s}
        if self.linear_percent:
            return {
                "Type": "LINEAR",
                "LinearStepSize": _share(self.linear_percent),
                "WaitIntervalInSeconds": self.wait_s,
            }
        return {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}

    def alarm(self, endpoint: str, config: str) -> dict[str, Any]:
        """Write our own alarm: the configuration among its dimensions, for an old fleet that is bad must not stop a new one."""
        dimensions = {"EndpointName": endpoint, "VariantName": names.PRIMARY, "EndpointConfigName": config}
        return {
            "AlarmName": alarm_name(config),
            "AlarmDescription": f"modeldeploy: 5xx answers of the new fleet of endpoint {endpoint}",
            "Namespace": "AWS/SageMaker",
            "MetricName": "Invocation5XXErrors",
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": float(self.max_errors),
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
        }


def alarm_name(config: str) -> str:
    """Name our alarm of a configuration."""
    return f"modeldeploy-{config}"


def refuse_unguarded(revision: Revision, instance_type: str) -> None:
    """Refuse what the service would not guard, though it says so."""
    serverless = SageMakerOptions.read(revision.options, "revision").serverless
    if serverless or instance_type.startswith(_UNGUARDED):
        what = "serverless revisions" if serverless else f"instances of type {instance_type}"
        message = f"SageMaker switches {what} all at once, whatever guard was asked for"
        raise UnsupportedError(
            message, capability="server_side_guard", hint="use instances of another type, or no guard="
        )


def _share(percent: int) -> Mapping[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def _check(name: str, value: int, least: int, most: int, *, off: int | None = None) -> None:
    if value != off and not least <= value <= most:
        message = f"{name} of a guard is {value!r}"
        raise ConfigurationError(message, hint=f"use a whole number from {least} to {most}")
