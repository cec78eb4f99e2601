"""An endpoint as it is, and as DescribeEndpoint tells it."""

from __future__ import annotations

from typing import Any

import attrs

from modeldeploy.simulate.sagemaker.fleets import Fleet, Variant
from modeldeploy.simulate.sagemaker.logbook import ENDPOINTS
from modeldeploy.simulate.sagemaker.models import container_of
from modeldeploy.simulate.sagemaker.routing import Route
from modeldeploy.simulate.sagemaker.world import Json, Record

CREATING, UPDATING, ROLLING_BACK, IN_SERVICE = "Creating", "Updating", "RollingBack", "InService"
DELETING, FAILED, ROLLBACK_FAILED = "Deleting", "Failed", "UpdateRollbackFailed"
IN_PROGRESS = frozenset({CREATING, UPDATING, ROLLING_BACK, DELETING})


@attrs.define(eq=False)
class Pending:
    """A deployment under way."""

    fleet: Fleet
    started: float
    stage: str = "Creating"


@attrs.define(eq=False, kw_only=True)
class Endpoint(Record):
    """One endpoint. ``fleet`` is the one whose configuration it tells as its own."""

    fleet: Fleet
    modified: float
    status: str = CREATING
    reason: str = ""
    route: Route = attrs.field(factory=Route)
    pending: Pending | None = None
    deployment: Json | None = None
    stale: Json = attrs.field(factory=dict)
    stale_until: float = 0.0

    @property
    def log_group(self) -> str:
        """Where its containers' output goes."""
        return f"{ENDPOINTS}/{self.name}"

    @property
    def config(self) -> Json:
        """What its configuration was created with."""
        return self.fleet.config.request


def described(endpoint: Endpoint) -> Json:
    """Write the answer of DescribeEndpoint."""
    answer: Json = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.fleet.config.name,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.modified,
    }
    _add_fleet(answer, endpoint)
    _add_settings(answer, endpoint)
    if endpoint.reason:
        answer["FailureReason"] = endpoint.reason
    if endpoint.pending is not None:
        answer["PendingDeploymentSummary"] = _pending(endpoint.pending)
    return answer


def _add_fleet(answer: Json, endpoint: Endpoint) -> None:
    if not endpoint.route.fleets:
        return  # not one instance is there yet
    answer["ProductionVariants"] = [_running(each) for each in endpoint.fleet.variants]
    if endpoint.fleet.shadows:
        answer["ShadowProductionVariants"] = [_running(each) for each in endpoint.fleet.shadows]


def _add_settings(answer: Json, endpoint: Endpoint) -> None:
    capture = endpoint.fleet.capture
    if capture is not None:
        answer["DataCaptureConfig"] = _capture(capture)
    if "AsyncInferenceConfig" in endpoint.config:
        answer["AsyncInferenceConfig"] = endpoint.config["AsyncInferenceConfig"]
    if endpoint.deployment is not None:
        answer["LastDeploymentConfig"] = endpoint.deployment


def _capture(settings: Json) -> Json:
    on = bool(settings.get("EnableCapture", False))
    return {
        "EnableCapture": on,
        "CaptureStatus": "Started" if on else "Stopped",
        "CurrentSamplingPercentage": settings["InitialSamplingPercentage"],
        "DestinationS3Uri": settings["DestinationS3Uri"],
        "KmsKeyId": settings.get("KmsKeyId", ""),
    }


def _pending(pending: Pending) -> Json:
    status = [{"Status": pending.stage, "StartTime": pending.started}]
    variants = [{**_running(each), "VariantStatus": status} for each in pending.fleet.variants]
    return {
        "EndpointConfigName": pending.fleet.config.name,
        "StartTime": pending.started,
        "ProductionVariants": [
            {**each, **_instances(v)} for each, v in zip(variants, pending.fleet.variants, strict=True)
        ],
    }


def _instances(variant: Variant) -> Json:
    kind = variant.settings.get("InstanceType")
    return {} if kind is None else {"InstanceType": kind}


def _running(variant: Variant) -> Json:
    image = container_of(variant.model)["Image"]
    answer: dict[str, Any] = {
        "VariantName": variant.name,
        "DeployedImages": [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": variant.model.created},
        ],
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.desired_weight,
    }
    if variant.serverless:
        settings = variant.settings["ServerlessConfig"]
        return {**answer, "CurrentServerlessConfig": settings, "DesiredServerlessConfig": settings}
    return {**answer, "CurrentInstanceCount": variant.count, "DesiredInstanceCount": variant.desired_count}
