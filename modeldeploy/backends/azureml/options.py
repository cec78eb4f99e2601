"""What can be set for an endpoint and for a revision on Azure ML; everything else is refused by name.

``Endpoint.deploy(..., options=AzureMLOptions(instance_type="Standard_DS3_v2"))``.
"""

from __future__ import annotations

import re
from typing import ClassVar

import attrs

from modeldeploy.backends.azureml.capabilities import MOST_INSTANCES, MOST_TIMEOUT_S
from modeldeploy.backends.options import Options, check_range, refuse

AUTH_MODES = ("key", "aml_token", "aad_token")
_INSTANCE = re.compile(r"[A-Z][A-Za-z0-9]*_[A-Za-z0-9_-]+")


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SHORT = tuple(day[:3] for day in _DAYS)
_WHEN = re.compile(
    r"(?P<first>[A-Z][a-z]{2})(?:-(?P<last>[A-Z][a-z]{2}))?\s+(?P<hour>\d{1,2}):(?P<minute>\d\d)\s*=\s*(?P<least>\d+)\s*-\s*(?P<most>\d+)"
)


@attrs.frozen
class Bounds:
    """How many instances there are from a time of the week on."""

    days: tuple[str, ...]
    hour: int
    minute: int
    least: int
    most: int


def _bounds(part: str) -> Bounds:
    match = _WHEN.fullmatch(part)
    first, last = (match["first"], match["last"] or match["first"]) if match else ("", "")
    if match is None or first not in _SHORT or last not in _SHORT:
        refuse("schedule", part, "write 'Mon-Fri 07:00=LEAST-MOST', parts separated by ';'")
    begin, end = _SHORT.index(first), _SHORT.index(last)
    days = _DAYS[begin : end + 1] if begin <= end else _DAYS[begin:] + _DAYS[: end + 1]
    found = Bounds(days, int(match["hour"]), int(match["minute"]), int(match["least"]), int(match["most"]))
    if not (found.hour < 24 and found.minute < 60 and 1 <= found.least <= found.most <= MOST_INSTANCES):  # noqa: PLR2004 - a clock
        refuse("schedule", part, f"use a time of the day, and 1 to {MOST_INSTANCES} instances")
    return found


class _Options(Options):
    """An options class of this backend."""

    backend: ClassVar[str] = "azureml"


@attrs.frozen(eq=True)
class AzureMLOptions(_Options):
    """Options of a revision."""

    instance_type: str = ""
    """Such as ``Standard_DS3_v2``; left out, it follows from the hardware that was asked for, or is the backend's."""
    image: str = ""
    """Container image with this library's model server, in place of the generated environment and script."""
    base_image: str = ""
    """Image that the generated environment is built on."""
    concurrency: int = 4
    """Requests that one instance works on at a time, 1 to 1000; the service rejects what is beyond twice as many with 429."""
    request_timeout_s: int = 60
    """Seconds that a request may take, 1 to 180."""
    startup_s: int = 600
    """Seconds that the container may take to answer its probes, 10 to 1800."""
    idempotent: bool = False
    """Whether a request whose answer was lost may be sent once more."""
    app_insights: bool = False
    """Whether the workspace's Application Insights is told of requests."""
    least_instances: int = 0
    """With ``most_instances`` lets Azure Monitor choose the number of instances, 1 at least."""
    most_instances: int = 0
    """0: no autoscaling, the number of instances is that of ``workers``; 50 at most."""
    cpu_percent: float = 0.0
    """Load of the processors above which an instance is added; below a third of it one is taken away."""
    schedule: str = ""
    """Bounds by time (UTC), separated by ``;``: ``Mon-Fri 07:00=2-8; Mon-Fri 20:00=1-2``; each holds until the next begins."""

    def __attrs_post_init__(self) -> None:
        if self.instance_type and not _INSTANCE.fullmatch(self.instance_type):
            refuse("instance_type", self.instance_type, "use a size such as 'Standard_DS3_v2'")
        check_range("concurrency", self.concurrency, 1, 1000)
        check_range("request_timeout_s", self.request_timeout_s, 1, MOST_TIMEOUT_S)
        check_range("startup_s", self.startup_s, 10, 1800)
        if self.image and self.base_image:
            refuse("base_image", self.base_image, "leave it out: image= is a container that serves by itself")
        self._check_scaling()

    def _check_scaling(self) -> None:
        scaled = self.most_instances > 0
        for name, value in (
            ("least_instances", self.least_instances),
            ("cpu_percent", self.cpu_percent),
            ("schedule", self.schedule),
        ):
            if value and not scaled:
                refuse(name, value, "give least_instances and most_instances too")
        if not scaled:
            return
        check_range("most_instances", self.most_instances, 1, MOST_INSTANCES)
        check_range("least_instances", self.least_instances, 1, self.most_instances)
        check_range("cpu_percent", self.cpu_percent, 0, 100)
        if not (self.cpu_percent or self.schedule):
            refuse("most_instances", self.most_instances, "say by what: cpu_percent or schedule")
        self.bounds()

    def bounds(self) -> tuple[Bounds, ...]:
        """Read the schedule."""
        return tuple(_bounds(part.strip()) for part in self.schedule.split(";") if part.strip())


@attrs.frozen(eq=True)
class AzureMLEndpointOptions(_Options):
    """Options of an endpoint; they count when it is made."""

    auth_mode: str = ""
    """``key``, ``aml_token`` or ``aad_token``; left out, it is the backend's."""
    public_network_access: bool = True
    """Whether it can be reached from outside of the workspace's network."""

    def __attrs_post_init__(self) -> None:
        check_auth_mode(self.auth_mode or AUTH_MODES[0])


def check_auth_mode(mode: str) -> str:
    """Refuse a way to authenticate that the service does not know."""
    if mode not in AUTH_MODES:
        refuse("auth_mode", mode, f"use one of {list(AUTH_MODES)}")
    return mode
