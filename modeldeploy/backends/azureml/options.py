"""What can be set for an endpoint and for a revision on Azure ML; everything else is refused by name.

``Endpoint.deploy(..., options=AzureMLOptions(instance_type="Standard_DS3_v2"))``.
"""

from __future__ import annotations

import re
from typing import ClassVar

import attrs

from modeldeploy.backends.azureml.capabilities import MOST_TIMEOUT_S
from modeldeploy.backends.cloud.options import Options, check_range, refuse

AUTH_MODES = ("key", "aml_token", "aad_token")
_INSTANCE = re.compile(r"[A-Z][A-Za-z0-9]*_[A-Za-z0-9_-]+")


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

    def __attrs_post_init__(self) -> None:
        if self.instance_type and not _INSTANCE.fullmatch(self.instance_type):
            refuse("instance_type", self.instance_type, "use a size such as 'Standard_DS3_v2'")
        check_range("concurrency", self.concurrency, 1, 1000)
        check_range("request_timeout_s", self.request_timeout_s, 1, MOST_TIMEOUT_S)
        check_range("startup_s", self.startup_s, 10, 1800)
        if self.image and self.base_image:
            refuse("base_image", self.base_image, "leave it out: image= is a container that serves by itself")


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
