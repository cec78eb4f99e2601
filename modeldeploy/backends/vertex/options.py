"""What can be set for an endpoint and for a revision on Vertex AI; everything else is refused by name.

``Endpoint.deploy(..., options=VertexOptions(machine_type="n1-standard-4", accelerator="NVIDIA_TESLA_T4"))``.
"""

from __future__ import annotations

import re
from typing import ClassVar

import attrs

from modeldeploy.backends.options import Options, check_range, refuse
from modeldeploy.backends.vertex.capabilities import MOST_DEDICATED_TIMEOUT_S, MOST_REPLICAS

_MACHINE = re.compile(r"[a-z][a-z0-9]*-[a-z0-9-]+")
_ACCELERATOR = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_IMAGE = re.compile(r"[\w.-]+(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


class _Options(Options):
    """An options class of this backend."""

    backend: ClassVar[str] = "vertex"


@attrs.frozen(eq=True)
class VertexOptions(_Options):
    """Options of a revision."""

    machine_type: str = ""
    """Such as ``n1-standard-4``; left out, it follows from the hardware that was asked for, or is the backend's."""
    accelerator: str = ""
    """Such as ``NVIDIA_TESLA_T4``; it must go with the machine type."""
    accelerator_count: int = 0
    """How many of them each replica has; 1 when only ``accelerator`` is given."""
    image: str = ""
    """Container image that serves by itself at the routes that it is told, in place of the public image and the generated start."""
    base_image: str = ""
    """Image with Python and pip that the generated start runs in; it must be one that the service may pull."""
    service_account: str = ""
    """The account that the replicas run as; the caller needs ``iam.serviceAccounts.actAs`` on it."""
    spot: bool = False
    """Whether replicas run on spare machines, which cost less and may be taken away at any time."""
    startup_s: int = 1800
    """Seconds that a deployment may take, 60 to 7200."""
    idempotent: bool = False
    """Whether a request whose answer was lost may be sent once more."""
    access_logging: bool = False
    """Whether Cloud Logging is told of each request; it charges by volume."""
    least_replicas: int = 0
    """With ``most_replicas`` lets the service choose the number of replicas, 1 at least."""
    most_replicas: int = 0
    """0: no autoscaling, the number of replicas is that of ``workers``. Quota is charged for this many."""
    cpu_percent: int = 0
    """Load of the processors that is aimed at; 0: the service's default of 60."""
    gpu_percent: int = 0
    """Load of the accelerators that is aimed at; 0: the service's default of 60."""

    def __attrs_post_init__(self) -> None:
        if self.machine_type and not _MACHINE.fullmatch(self.machine_type):
            refuse("machine_type", self.machine_type, "use a machine type such as 'n1-standard-4'")
        if self.accelerator and not _ACCELERATOR.fullmatch(self.accelerator):
            refuse("accelerator", self.accelerator, "use a name such as 'NVIDIA_TESLA_T4'")
        if self.accelerator_count and not self.accelerator:
            refuse("accelerator_count", self.accelerator_count, "give accelerator too")
        check_range("accelerator_count", self.accelerator_count, 0, 16)
        check_range("startup_s", self.startup_s, 60, 7200)
        for name in ("image", "base_image"):
            if getattr(self, name) and not _IMAGE.fullmatch(getattr(self, name)):
                refuse(name, getattr(self, name), "write HOST/PATH:TAG, of Artifact Registry")
        if self.image and self.base_image:
            refuse("base_image", self.base_image, "leave it out: image= is a container that serves by itself")
        self._check_scaling()

    def _check_scaling(self) -> None:
        for name in ("least_replicas", "cpu_percent", "gpu_percent"):
            if getattr(self, name) and not self.most_replicas:
                refuse(name, getattr(self, name), "give least_replicas and most_replicas too")
        if not self.most_replicas:
            return
        check_range("most_replicas", self.most_replicas, 1, MOST_REPLICAS)
        check_range("least_replicas", self.least_replicas, 1, self.most_replicas)
        check_range("cpu_percent", self.cpu_percent, 0, 100)
        check_range("gpu_percent", self.gpu_percent, 0, 100)


@attrs.frozen(eq=True)
class VertexEndpointOptions(_Options):
    """Options of an endpoint; they count when it is made, for its address would change if it were made anew."""

    dedicated: bool = False
    """Whether it has an address and a network path of its own: requests of 10 MB instead of 1.5 MB, and no shared quota."""
    inference_timeout_s: int = 0
    """Seconds that an answer may take, 1 to 3600; only of a dedicated endpoint, shared ones give 60."""

    def __attrs_post_init__(self) -> None:
        check_range("inference_timeout_s", self.inference_timeout_s, 0, MOST_DEDICATED_TIMEOUT_S)
        if self.inference_timeout_s and not self.dedicated:
            refuse("inference_timeout_s", self.inference_timeout_s, "give dedicated=True too")
