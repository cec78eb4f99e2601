"""A transform job as it is, and as DescribeTransformJob tells it."""

from __future__ import annotations

import threading

import attrs

from modeldeploy.simulate.sagemaker.containers import Container
from modeldeploy.simulate.sagemaker.world import Json, Record

IN_PROGRESS, COMPLETED, FAILED = "InProgress", "Completed", "Failed"
STOPPING, STOPPED = "Stopping", "Stopped"
_TOLD = (
    "TransformJobName", "ModelName", "MaxConcurrentTransforms", "ModelClientConfig", "MaxPayloadInMB", "BatchStrategy", "Environment",
    "TransformInput", "TransformOutput", "DataCaptureConfig", "TransformResources", "DataProcessing", "ExperimentConfig",
)  # fmt: skip


@attrs.define(eq=False, kw_only=True)
class TransformJob(Record):
    """One job."""

    model: Record
    modified: float
    status: str = IN_PROGRESS
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    stop: threading.Event = attrs.field(factory=threading.Event)
    container: Container | None = None
    """The one that works on it now."""

    @property
    def source(self) -> Json:
        """What is to be transformed."""
        source: Json = self.request["TransformInput"]
        return source

    @property
    def output(self) -> Json:
        """Where the answers go."""
        output: Json = self.request["TransformOutput"]
        return output


def described(job: TransformJob) -> Json:
    """Write the answer of DescribeTransformJob."""
    answer: Json = {name: job.request[name] for name in _TOLD if name in job.request}
    answer |= {
        "TransformJobArn": job.arn,
        "TransformJobStatus": job.status,
        "CreationTime": job.created,
        "DataProcessing": {
            "InputFilter": "$",
            "OutputFilter": "$",
            "JoinSource": "None",
            **job.request.get("DataProcessing", {}),
        },
        "TransformInput": {"CompressionType": "None", "SplitType": "None", **job.source},
        "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **job.output},
    }
    return answer | _times(job)


def summary(job: TransformJob) -> Json:
    """Write a line of ListTransformJobs."""
    times = _times(job)
    times.pop("TransformStartTime", None)
    return {
        "TransformJobName": job.name,
        "TransformJobArn": job.arn,
        "CreationTime": job.created,
        "LastModifiedTime": job.modified,
        "TransformJobStatus": job.status,
        **times,
    }


def _times(job: TransformJob) -> Json:
    found: Json = {
        "TransformStartTime": job.started,
        "TransformEndTime": job.ended,
        "FailureReason": job.reason or None,
    }
    return {name: value for name, value in found.items() if value is not None}
