"""Numbers of instances that the service chooses: by load, by the clock, to zero where SageMaker can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.client import Client
from modeldeploy.backends.sagemaker.options import SageMakerOptions
from modeldeploy.errors import NotFoundError, UnsupportedError
from modeldeploy.values.serving import Revision

SCALE = "scale"
_SPACE = {"ServiceNamespace": "sagemaker"}
_COUNT = {"ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
_SERVICE = "application-autoscaling"
_PER_INSTANCE = "SageMakerVariantInvocationsPerInstance"
_BACKLOG = "ApproximateBacklogSizePerInstance"
_NO_ZERO = (
    "a real-time variant on instances keeps at least one: use a serverless revision (serverless_memory_mb=2048), an asynchronous "
    "endpoint (asynchronous=true), or least_instances=1"
)


def refuse(revision: Revision, *, asynchronous: bool) -> None:
    """Refuse bounds that SageMaker does not keep, before anything is sent."""
    options = SageMakerOptions.read(revision.options, "revision")
    least = min([options.least_instances, *(bound[1] for bound in options.bounds())])
    if options.most_instances and least == 0 and not asynchronous:
        message = "SageMaker does not scale instances of a real-time variant to zero"
        raise UnsupportedError(message, capability="scale_to_zero", hint=_NO_ZERO)
    if options.most_instances and revision.scale.workers > options.most_instances:
        message = f"workers is {revision.scale.workers} and most_instances {options.most_instances}"
        raise UnsupportedError(message, capability="scale_to_zero", hint="start with no more than the most")


class Scaling:
    """The scalable target of a variant, with its policy and its schedule; each call may be repeated."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def apply(self, endpoint: str, revision: Revision, *, asynchronous: bool = False) -> None:
        """Let the service scale a variant as the revision's options say; does nothing when they say nothing."""
        options = SageMakerOptions.read(revision.options, "revision")
        if not options.most_instances:
            return
        target = self._target(endpoint, revision.id)
        bounds = {"MinCapacity": options.least_instances, "MaxCapacity": options.most_instances}
        if self._bounds(endpoint, revision.id) != bounds:
            self._client.call(_SERVICE, "register_scalable_target", **target, **bounds)
        if options.requests_per_instance:
            policy = _policy(endpoint, options.requests_per_instance, asynchronous=asynchronous)
            name = f"modeldeploy-{endpoint}-{revision.id}"
            self._client.call(
                _SERVICE, "put_scaling_policy", **target, PolicyName=name, PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration=policy,
            )  # fmt: skip
        for action in _actions(endpoint, revision.id, options):
            self._client.call(_SERVICE, "put_scheduled_action", **target, **action)

    def _bounds(self, endpoint: str, revision: str) -> dict[str, int] | None:
        found = self._find(endpoint, revision)
        return {key: found[key] for key in ("MinCapacity", "MaxCapacity")} if found else None

    def _find(self, endpoint: str, revision: str) -> dict[str, Any] | None:
        answer = self._client.call(
            _SERVICE, "describe_scalable_targets", **_SPACE, **_COUNT, ResourceIds=[names.resource(endpoint, revision)]
        )
        return next(iter(answer["ScalableTargets"]), None)

    def remove(self, endpoint: str, revision: str) -> None:
        """Take the scaling of a variant away, its policies, alarms and schedule with it; before the variant goes."""
        if self._find(endpoint, revision) is None:
            return
        target = self._target(endpoint, revision)
        for each in self._all("describe_scaling_policies", "ScalingPolicies", target):
            self._forget("delete_scaling_policy", **target, PolicyName=each["PolicyName"])
        for each in self._all("describe_scheduled_actions", "ScheduledActions", target):
            self._forget("delete_scheduled_action", **target, ScheduledActionName=each["ScheduledActionName"])
        self._forget("deregister_scalable_target", **target)

    def _all(self, operation: str, key: str, target: Mapping[str, str]) -> list[dict[str, Any]]:
        return list(self._client.pages(_SERVICE, operation, key, **target))

    def _forget(self, operation: str, **parameters: str) -> None:
        try:
            self._client.call(_SERVICE, operation, **parameters)
        except NotFoundError:
            return

    @staticmethod
    def _target(endpoint: str, revision: str) -> dict[str, str]:
        return {**_SPACE, **_COUNT, "ResourceId": names.resource(endpoint, revision)}


def _policy(endpoint: str, aim: float, *, asynchronous: bool) -> dict[str, Any]:
    if not asynchronous:
        return {"TargetValue": aim, "PredefinedMetricSpecification": {"PredefinedMetricType": _PER_INSTANCE}}
    metric = {
        "MetricName": _BACKLOG,
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Average",
    }
    return {"TargetValue": aim, "CustomizedMetricSpecification": metric}


def _actions(endpoint: str, revision: str, options: SageMakerOptions) -> Iterator[dict[str, Any]]:
    for number, (when, least, most) in enumerate(options.bounds()):
        yield {
            "ScheduledActionName": f"modeldeploy-{endpoint}-{revision}-{number}",
            "Schedule": when,
            "ScalableTargetAction": {"MinCapacity": least, "MaxCapacity": most},
        }
