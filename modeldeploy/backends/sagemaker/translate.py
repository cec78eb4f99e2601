"""Values of ours to requests of the service and back; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.backends.sagemaker import hardware, names
from modeldeploy.backends.sagemaker.described import Config, Seen, Status, Variant, tag_list
from modeldeploy.backends.sagemaker.options import SageMakerEndpointOptions, SageMakerOptions
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, RevisionState, Traffic

DEFAULT_INSTANCE = "ml.m5.large"


@attrs.frozen
class Defaults:
    """What a backend puts into every request."""

    role: str = ""
    bucket: str = ""
    instance_type: str = DEFAULT_INSTANCE
    image: str = ""
    kms_key: str = ""
    vpc: Mapping[str, tuple[str, ...]] | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen
class Container:
    """What a Model runs: an image, where its data lies, and its environment."""

    image: str
    data_url: str
    environment: Mapping[str, str] = attrs.field(factory=dict[str, str])


def model_request(
    endpoint: str, revision: Revision, container: Container, record: str, defaults: Defaults
) -> dict[str, Any]:
    """Write the parameters of CreateModel."""
    own = {
        names.ENV_ENDPOINT: endpoint,
        names.ENV_REVISION: revision.id,
        names.ENV_SPEC: names.spec(revision),
        names.ENV_RECORD: record,
    }
    found: dict[str, Any] = {
        "ModelName": names.model_name(endpoint, revision),
        "PrimaryContainer": {
            "Image": container.image,
            "ModelDataUrl": container.data_url,
            "Environment": {**container.environment, **own},
        },
        "ExecutionRoleArn": defaults.role,
        "Tags": tag_list(tags(endpoint, defaults, revision)),
    }
    if defaults.vpc:
        found["VpcConfig"] = {key: list(value) for key, value in defaults.vpc.items()}
    return found


def tags(endpoint: str, defaults: Defaults, revision: Revision | None = None) -> dict[str, str]:
    """Give the tags of what is made for an endpoint, or for one revision of it."""
    found = {**defaults.tags, names.TAG_ENDPOINT: endpoint}
    if revision is not None:
        found |= {names.TAG_REVISION: revision.id, names.TAG_SPEC: names.spec(revision)}
    return found


def variant(endpoint: str, revision: Revision, weight: float, defaults: Defaults) -> Variant:
    """Make the variant of a revision: on instances, or serverless."""
    options = SageMakerOptions.read(revision.options, "revision")
    model = names.model_name(endpoint, revision)
    if options.serverless:
        size = {"MemorySizeInMB": options.serverless_memory_mb, "MaxConcurrency": options.serverless_concurrency}
        return Variant(revision.id, model, weight, {"ServerlessConfig": size})
    settings: dict[str, Any] = {
        "InitialInstanceCount": max(revision.scale.workers, options.least_instances),
        "InstanceType": instance_type(revision, defaults),
    }
    optional = {
        "VolumeSizeInGB": options.volume_gb,
        "ContainerStartupHealthCheckTimeoutInSeconds": options.startup_timeout,
        "ModelDataDownloadTimeoutInSeconds": options.download_timeout,
        "InferenceAmiVersion": options.inference_ami,
    }
    return Variant(revision.id, model, weight, settings | {key: value for key, value in optional.items() if value})


def instance_type(revision: Revision, defaults: Defaults) -> str:
    """Choose the instance type: the one that is named, the one that the hardware needs, or the backend's."""
    named = SageMakerOptions.read(revision.options, "revision").instance_type
    return named or hardware.choose(revision.hardware, defaults.instance_type)


def first_config(spec: EndpointSpec, first: Variant, defaults: Defaults) -> Config:
    """Make the configuration that an endpoint begins with."""
    options = SageMakerEndpointOptions.read(spec.options, "endpoint")
    extras: dict[str, Any] = {}
    if defaults.kms_key:
        extras["KmsKeyId"] = defaults.kms_key
    if options.capture_percent:
        extras["DataCaptureConfig"] = _capture(spec.name, options, defaults)
    if options.asynchronous:
        extras["AsyncInferenceConfig"] = _queue(spec.name, options, defaults)
    return Config((first,), (), extras)


def _capture(endpoint: str, options: SageMakerEndpointOptions, defaults: Defaults) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": options.capture_percent,
        "DestinationS3Uri": options.capture_to or f"s3://{defaults.bucket}/{names.captured(endpoint)}",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }


def _queue(endpoint: str, options: SageMakerEndpointOptions, defaults: Defaults) -> dict[str, Any]:
    base = f"s3://{defaults.bucket}/{names.place(endpoint)}"
    found: dict[str, Any] = {
        "OutputConfig": {"S3OutputPath": f"{base}answers", "S3FailurePath": f"{base}failures"},
    }
    if options.invocations_per_instance:
        found["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": options.invocations_per_instance}
    return found


def weights(config: Config, traffic: Traffic) -> list[dict[str, Any]]:
    """Write every production variant's weight, those of 0 too: one that is left out keeps what it has."""
    return [{"VariantName": each.name, "DesiredWeight": float(traffic.share(each.name))} for each in config.production]


def state(seen: Seen, config: Config, revisions: Mapping[str, Revision], *, url: str) -> EndpointState:
    """Show an endpoint as any provider is shown; ``revisions`` are those that could be read, by id."""
    return EndpointState(
        name=seen.name,
        url=url,
        revisions=tuple(_revision_state(seen, revisions[each.name]) for each in config.variants),
        traffic=seen.traffic if seen.status.serves else Traffic(),
        version=seen.version,
        settled=seen.status.settled,
    )


def _revision_state(seen: Seen, revision: Revision) -> RevisionState:
    there = {slot.name for slot in (*seen.production, *seen.shadow)}
    ready = seen.status.serves and revision.id in there
    if ready:
        return RevisionState(revision, ready=True)
    failed = seen.status in {Status.FAILED, Status.OUT_OF_SERVICE}
    return RevisionState(revision, ready=False, note=seen.reason if failed else f"the endpoint is {seen.status.value}")
