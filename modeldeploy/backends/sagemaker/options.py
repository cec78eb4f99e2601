"""What can be set for an endpoint and for a revision on SageMaker; everything else is refused by name.

Options travel as text inside a Revision or EndpointSpec. The typed objects here are mappings of such text, so that they can be passed
wherever options are taken: ``Endpoint.deploy(..., options=SageMakerOptions(instance_type="ml.g5.xlarge"))``.
"""

from __future__ import annotations

import re
from typing import ClassVar

import attrs

from modeldeploy.backends.options import Options, check_range, refuse

_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")
_SCHEDULE = re.compile(r"(?P<when>(?:cron|rate|at)\([^()]+\))\s*=\s*(?P<least>\d+)\s*-\s*(?P<most>\d+)")
_MEMORY_MB = (1024, 2048, 3072, 4096, 5120, 6144)
_S3 = re.compile(r"s3://[^/]+(/.*)?")


class _Options(Options):
    """An options class of this backend."""

    backend: ClassVar[str] = "sagemaker"


@attrs.frozen(eq=True)
class SageMakerOptions(_Options):
    """Options of a revision."""

    instance_type: str = ""
    """Such as ``ml.m5.large``; left out, it follows from the hardware that was asked for, or is the backend's."""
    image: str = ""
    """Container image to use in place of the provider's prebuilt one."""
    serverless_memory_mb: int = 0
    """1024 to 6144 in steps of 1024 make the revision serverless; it then has no instances and scales to zero by itself."""
    serverless_concurrency: int = 20
    """Requests that a serverless revision answers at one time, 1 to 200."""
    least_instances: int = -1
    """With ``most_instances`` lets the service choose the number of instances; 0 on asynchronous endpoints only."""
    most_instances: int = 0
    """0: no autoscaling, the number of instances is that of ``workers``."""
    requests_per_instance: float = 0.0
    """Requests per minute and instance that autoscaling aims at (waiting requests per instance on asynchronous endpoints)."""
    schedule: str = ""
    """Bounds by time, separated by ``;``: ``cron(0 7 * * ? *)=2-8; cron(0 20 * * ? *)=1-2`` (UTC)."""
    idempotent: bool = False
    """Whether a request whose answer was lost may be sent once more."""
    volume_gb: int = 0
    """Size of the storage volume of an instance; 0 for the service's choice."""
    startup_timeout: int = 0
    """Seconds within which a container must answer its health check, 60 to 3600; 0 for the service's choice."""
    download_timeout: int = 0
    """Seconds that loading the model's data may take, 60 to 3600; 0 for the service's choice."""
    inference_ami: str = ""
    """Version of the machine image of GPU instances."""

    def __attrs_post_init__(self) -> None:
        if self.instance_type and not _INSTANCE.fullmatch(self.instance_type):
            refuse("instance_type", self.instance_type, "use a type such as 'ml.m5.large'")
        if self.serverless_memory_mb and self.serverless_memory_mb not in _MEMORY_MB:
            refuse("serverless_memory_mb", self.serverless_memory_mb, f"use one of {list(_MEMORY_MB)}")
        check_range("serverless_concurrency", self.serverless_concurrency, 1, 200)
        check_range("volume_gb", self.volume_gb, 0, 512)
        for name in ("startup_timeout", "download_timeout"):
            if getattr(self, name):
                check_range(name, getattr(self, name), 60, 3600)
        self._check_scaling()

    def _check_scaling(self) -> None:
        scaled = self.most_instances > 0
        if scaled and not 0 <= self.least_instances <= self.most_instances:
            refuse("least_instances", self.least_instances, "give both bounds, the least not above the most")
        for name, value in (("requests_per_instance", self.requests_per_instance), ("schedule", self.schedule)):
            if value and not scaled:
                refuse(name, value, "give least_instances and most_instances too")
        if self.requests_per_instance < 0:
            refuse("requests_per_instance", self.requests_per_instance, "use a number above 0")
        if scaled and self.serverless_memory_mb:
            hint = "leave it out: a serverless revision is scaled by the service, to zero too"
            refuse("most_instances", self.most_instances, hint)
        if scaled and not (self.requests_per_instance or self.schedule):
            refuse("most_instances", self.most_instances, "say by what: requests_per_instance or schedule")
        self.bounds()

    @property
    def serverless(self) -> bool:
        """Whether it runs without instances."""
        return self.serverless_memory_mb > 0

    def bounds(self) -> tuple[tuple[str, int, int], ...]:
        """Read the schedule: when, least and most instances."""
        parts = [part.strip() for part in self.schedule.split(";") if part.strip()]
        found = [_SCHEDULE.fullmatch(part) for part in parts]
        for part, match in zip(parts, found, strict=True):
            if match is None or int(match["least"]) > int(match["most"]):
                refuse("schedule", part, "write 'cron(...)=LEAST-MOST', parts separated by ';'")
        return tuple((match["when"], int(match["least"]), int(match["most"])) for match in found if match)


@attrs.frozen(eq=True)
class SageMakerEndpointOptions(_Options):
    """Options of an endpoint; they count when it is made."""

    capture_percent: int = 0
    """Share of the requests whose input and output the service writes to S3, 0 to 100."""
    capture_to: str = ""
    """Where to: ``s3://bucket/prefix``; left out, below the backend's bucket."""
    asynchronous: bool = False
    """Whether requests wait in a queue and answers come by way of S3; the only kind of instances that scales to zero."""
    invocations_per_instance: int = 0
    """Requests that one instance of an asynchronous endpoint works on at a time, 1 to 1000; 0 for the service's choice."""

    def __attrs_post_init__(self) -> None:
        check_range("capture_percent", self.capture_percent, 0, 100)
        check_range("invocations_per_instance", self.invocations_per_instance, 0, 1000)
        if self.capture_to and not _S3.fullmatch(self.capture_to):
            refuse("capture_to", self.capture_to, "use s3://bucket/prefix")
        if self.capture_to and not self.capture_percent:
            refuse("capture_to", self.capture_to, "give capture_percent too")
        if self.invocations_per_instance and not self.asynchronous:
            refuse("invocations_per_instance", self.invocations_per_instance, "it needs asynchronous=true")
