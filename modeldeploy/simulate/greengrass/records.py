"""What an account holds: components, deployments with how far each device is, and the devices."""

from __future__ import annotations

from typing import Any

import attrs

Json = dict[str, Any]
ACTIVE, CANCELED, INACTIVE = "ACTIVE", "CANCELED", "INACTIVE"
QUEUED, IN_PROGRESS, SUCCEEDED, FAILED = "QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED"
ENDED = frozenset({SUCCEEDED, FAILED, CANCELED})


@attrs.frozen
class Timings:
    """How long the service and the devices take, in seconds of the service."""

    deployable: float = 5.0
    """How long the service takes to check a component."""
    queue: float = 10.0
    """How long a device takes to notice a deployment."""
    apply: float = 60.0
    """How long a device takes to carry it out."""


@attrs.define(eq=False)
class Component:
    """A version of a component."""

    arn: str
    recipe: Json
    """Its keys in lower case."""
    tags: dict[str, str]
    created: float
    deployable_at: float
    failure: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.recipe["componentname"])

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.recipe["componentversion"])

    @property
    def revision(self) -> str:
        """The revision that it says it is."""
        found = self.recipe.get("componentconfiguration", {}).get("defaultconfiguration", {})
        return str(found.get("revision", ""))

    @property
    def artifacts(self) -> list[Json]:
        """All of its artefacts."""
        return [each for manifest in self.recipe["manifests"] for each in manifest.get("artifacts", ())]


@attrs.define(eq=False)
class Execution:
    """What one device does for one deployment."""

    status: str
    queued: float
    changed: float
    begun: float = 0.0
    reason: str = ""


@attrs.define(eq=False)
class Deployment:
    """A deployment to a group of things, and how far each is."""

    id: str
    target: str
    request: Json
    created: float
    number: int
    status: str = ACTIVE
    executions: dict[str, Execution] = attrs.field(factory=dict)

    @property
    def components(self) -> dict[str, str]:
        """The versions that are wanted, by component."""
        return {name: str(each["componentVersion"]) for name, each in self.request.get("components", {}).items()}

    @property
    def name(self) -> str:
        """What its maker called it."""
        return str(self.request.get("deploymentName") or self.id)


@attrs.define(eq=False)
class Core:
    """A core device: what is installed, and whether it can be reached."""

    name: str
    online: bool = True
    installed: dict[str, str] = attrs.field(factory=dict)
    changed: float = 0.0
    told: float = 0.0
    """When it last told its state; that it does so once a day only is not simulated."""
