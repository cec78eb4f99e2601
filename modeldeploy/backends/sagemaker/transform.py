"""Transform jobs as the service has them: asked for under names that follow from the work, observed, stopped, and their log lines."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.backends.sagemaker.client import Client
from modeldeploy.backends.sagemaker.errors import AlreadyThereError
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.errors import ConflictError, InvalidRequestError, ModelDeployError, NotFoundError, UnavailableError
from modeldeploy.serving.lines import SWITCH
from modeldeploy.serving.payloads import LINES_TYPE

LOG_GROUP = "/aws/sagemaker/TransformJobs"
_LOG_LINES = 20
_LOG_STREAMS = 5
# What the service says when the data or the model is to blame, not itself; facts seen in its documentation and in bug reports.
_OURS = ("ClientError", "AlgorithmError", "Bad HTTP status", "Model server")


class Status(enum.StrEnum):
    """Where a transform job stands, in the service's words."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in {Status.IN_PROGRESS, Status.STOPPING}


@attrs.frozen
class Seen:
    """A transform job as it is shown."""

    name: str
    status: Status
    source: str
    """The address of its list of objects."""
    reason: str = ""

    @property
    def blames_rows(self) -> bool:
        """Whether rows, or the model with them, made it fail, and not the service or a lack of machines."""
        return self.status is Status.FAILED and any(mark in self.reason for mark in _OURS)


@attrs.frozen
class Setting:
    """In what surroundings a transform job works."""

    terms: Terms
    instance_type: str
    instances: int = 1
    kms_key: str = ""
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])


def request(name: str, model: str, *, source: str, output: str, setting: Setting) -> dict[str, Any]:
    """Write the parameters of CreateTransformJob for JSON Lines that lie in the objects which ``source`` lists."""
    terms, key = setting.terms, setting.kms_key
    return {
        "TransformJobName": name,
        "ModelName": model,
        "MaxConcurrentTransforms": terms.concurrency,
        "MaxPayloadInMB": terms.max_payload_mb,
        "BatchStrategy": "MultiRecord",
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": terms.timeout, "InvocationsMaxRetries": 1},
        "Environment": {SWITCH: "true"},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": source}},
            "ContentType": LINES_TYPE,
            "CompressionType": "None",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": output,
            "Accept": LINES_TYPE,
            "AssembleWith": "Line",
            **({"KmsKeyId": key} if key else {}),
        },
        "TransformResources": {
            "InstanceType": setting.instance_type,
            "InstanceCount": setting.instances,
            **({"VolumeKmsKeyId": key} if key else {}),
        },
        "Tags": [{"Key": each, "Value": value} for each, value in setting.tags.items()],
    }


class Transforms:
    """The transform jobs of an account."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, wanted: Mapping[str, Any]) -> Seen:
        """Ask for a job, or find it asked for; ConflictError when other work bears its name, which stays taken for ever."""
        name = wanted["TransformJobName"]
        try:
            self._client.sagemaker("create_transform_job", **wanted)
        except AlreadyThereError as error:
            found = self.see(name)
            if found is None:
                # Asked for a moment ago, by a call whose answer was lost, and not seen everywhere yet.
                message = f"transform job {name!r} exists and is not seen yet"
                raise UnavailableError(message) from error
            if found.source != _source(wanted):
                message = f"there is a transform job {name!r} for other work"
                raise ConflictError(message, hint="the next number is tried") from error
            return found
        return Seen(name, Status.IN_PROGRESS, _source(wanted))

    def see(self, name: str) -> Seen | None:
        """Look at a job; None when there is none."""
        try:
            found = self._client.sagemaker("describe_transform_job", TransformJobName=name)
        except NotFoundError:
            return None
        return Seen(name, Status(found["TransformJobStatus"]), _source(found), found.get("FailureReason", ""))

    def stop(self, name: str) -> None:
        """Ask a job to stop; one that is gone or has ended is fine."""
        try:
            self._client.sagemaker("stop_transform_job", TransformJobName=name)
        except (NotFoundError, InvalidRequestError, AlreadyThereError):
            return

    def lines(self, name: str) -> list[str]:
        """Give the last log lines of a job's containers and of its data; none when there are none or they cannot be read."""
        try:
            return self._lines(name)[-_LOG_LINES:]
        except ModelDeployError:
            # Only an addition to the error of the job itself, which must not be hidden.
            return []

    def _lines(self, name: str) -> list[str]:
        found = self._client.call(
            "logs", "describe_log_streams", logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/", limit=_LOG_STREAMS
        )
        events = [
            event
            for stream in found.get("logStreams", ())
            for event in self._client.call(
                "logs", "get_log_events", logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"],
                limit=_LOG_LINES, startFromHead=False,
            )["events"]
        ]  # fmt: skip
        return [str(event["message"]).rstrip() for event in sorted(events, key=lambda event: event["timestamp"])]


def _source(job: Mapping[str, Any]) -> str:
    return str(job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
