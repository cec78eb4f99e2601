"""What can be set for a revision on IoT Edge; everything else is refused by name."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import attrs

from modeldeploy.backends.options import Options, check_range, refuse

RESTARTS = ("always", "never", "on-failure", "on-unhealthy")


@attrs.frozen(eq=True)
class IoTEdgeOptions(Options):
    """Options of a revision."""

    backend: ClassVar[str] = "iotedge"

    image: str = ""
    """The module's container image; left out, it is the backend's. ``{model}``, ``{version}`` and ``{digest}`` are filled in."""
    create_options: str = ""
    """The container's create options, a JSON object; left out, its port 8080 is published on the device's loopback."""
    restart_policy: str = "always"
    """``always``, ``never``, ``on-failure`` or ``on-unhealthy``."""
    startup_order: int = 0
    """Modules with lower numbers are started first; 0 with the first."""
    port: int = 8080
    """The port of the device on which the model answers, on its loopback."""

    def __attrs_post_init__(self) -> None:
        if self.restart_policy not in RESTARTS:
            refuse("restart_policy", self.restart_policy, f"use one of {list(RESTARTS)}")
        check_range("port", self.port, 1, 65_535)
        check_range("startup_order", self.startup_order, 0, 4_294_967_295)
        self.container()

    def container(self) -> dict[str, Any]:
        """Give the create options as an object."""
        if not self.create_options:
            binding = {"HostIp": "127.0.0.1", "HostPort": str(self.port)}
            return {"ExposedPorts": {"8080/tcp": {}}, "HostConfig": {"PortBindings": {"8080/tcp": [binding]}}}
        try:
            found = json.loads(self.create_options)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            refuse("create_options", self.create_options, "write a JSON object, as Docker's API takes it")
        return found
