"""What the service says of an endpoint and what is deployed to it, as values; pure, and tolerant of fields that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.cloud.naming import digest, spec
from modeldeploy.backends.vertex import names
from modeldeploy.values.serving import WHOLE, Revision, Traffic

_DEPLOYS = ".DeployModelOperationMetadata"


@attrs.frozen
class Deployed:
    """A deployed model with the revision that its version of the model was registered for; None when it is none of ours."""

    id: str
    model: str
    version: str
    revision: Revision | None = None
    replicas: str = ""
    """What the service says when fewer replicas run than were asked for."""

    @property
    def name(self) -> str:
        """The revision's id; of what others deployed, the id that the service shows."""
        return self.revision.id if self.revision else self.id

    @property
    def spec(self) -> str:
        """The hash of all that its revision is; empty when it is none of ours."""
        return spec(self.revision) if self.revision else ""


@attrs.frozen
class Seen:
    """An endpoint with what is deployed to it."""

    name: str
    resource: str
    etag: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict[str, str])
    created: str = ""
    traffic: Traffic = attrs.field(factory=Traffic)
    deployed: tuple[Deployed, ...] = ()
    moving: tuple[str, ...] = ()
    """Names of the operations on it that have not ended."""
    deploying: tuple[str, ...] = ()
    """Those of them that deploy something."""
    dns: str = ""
    """The address of a dedicated endpoint."""

    @classmethod
    def of(cls, endpoint: Any, deployed: Iterable[Deployed] = (), moving: Iterable[Any] = ()) -> Seen:
        """Read a message of the API."""
        moving, there = list(moving), tuple(sorted(deployed, key=lambda each: each.name))
        return cls(
            name=endpoint.name.rpartition("/")[2],
            resource=endpoint.name,
            etag=endpoint.etag,
            labels=dict(endpoint.labels),
            created=str(endpoint.create_time or ""),
            traffic=table(dict(endpoint.traffic_split), {each.id: each.name for each in there}),
            deployed=there,
            moving=tuple(each.name for each in moving),
            deploying=tuple(each.name for each in moving if each.metadata.type_url.endswith(_DEPLOYS)),
            dns=endpoint.dedicated_endpoint_dns if endpoint.dedicated_endpoint_enabled else "",
        )

    @property
    def ours(self) -> bool:
        """Whether it bears our label."""
        return self.labels.get(names.LABEL_ENDPOINT) == self.name

    @property
    def settled(self) -> bool:
        """Whether nothing is in flight."""
        return not self.moving

    @property
    def serial(self) -> int:
        """The number of tables that it was given."""
        text = self.labels.get(names.LABEL_SERIAL, "0")
        return int(text) if text.isdecimal() else 0

    @property
    def version(self) -> str:
        """Another one after every change of ours."""
        there = [[each.name, each.spec] for each in self.deployed]
        return digest([self.created, self.serial, sorted(self.traffic.live.items()), there])[:16]

    def find(self, revision: str) -> Deployed | None:
        """Find what is deployed by its revision's id, or None."""
        return next((each for each in self.deployed if each.name == revision), None)


def table(split: Mapping[str, int], revisions: Mapping[str, str]) -> Traffic:
    """Read a split by ids of deployed models as a table by revisions; one that does not sum to 100 is none."""
    whole = {revisions.get(key, key): int(percent) for key, percent in split.items()}
    return Traffic(whole if sum(whole.values()) == WHOLE else {})


@attrs.frozen
class Progress:
    """Where a long-running operation stands."""

    done: bool
    code: int = 0
    message: str = ""
    stage: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.done and self.code != 0


def progress(operation: Any) -> Progress:
    """Read a ``google.longrunning.Operation``."""
    if not operation.done:
        return Progress(done=False, stage=_stage(operation))
    return Progress(done=True, code=operation.error.code, message=operation.error.message)


def _stage(operation: Any) -> str:
    """Read how far a deployment has come, in the service's own words; empty where it does not say."""
    from google.cloud.aiplatform_v1 import types

    kind = types.DeployModelOperationMetadata
    if not operation.metadata.type_url.endswith(_DEPLOYS):
        return ""
    told = kind.deserialize(operation.metadata.value).deployment_stage
    name = str(getattr(told, "name", told))
    return "" if name.endswith("UNSPECIFIED") else name.lower().replace("_", " ")
