"""What the hub shows, read: the configurations of a target, the newest first, and who is told what."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import digest
from modeldeploy.backends.iotedge import manifest, names
from modeldeploy.errors import ConflictError
from modeldeploy.values.serving import EndpointState, Revision, RevisionState, Traffic

Json = dict[str, Any]


@attrs.frozen
class Config:
    """A configuration: one revision of a target, and the place below which devices are told to run it."""

    name: str
    revision: str
    bound: int
    priority: int
    etag: str
    created: str
    document: Mapping[str, Any] = attrs.field(repr=False, eq=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Config:
        """Read a configuration of ours; ConflictError when somebody wrote another target condition."""
        labels = document["labels"]
        target = labels[names.LABEL_TARGET]
        bound = names.bound(str(document.get("targetCondition")), target)
        if bound is None:
            message = f"somebody changed the target condition of configuration {document['id']!r}"
            raise ConflictError(message, hint=f"restore it to '... AND tags.{names.TAG}.{names.tag(target)} < N'")
        return cls(
            name=document["id"],
            revision=labels[names.LABEL_REVISION],
            bound=bound,
            priority=int(document["priority"]),
            etag=str(document["etag"]),
            created=str(document.get("createdTimeUtc", "")),
            document=document,
        )

    @property
    def spec(self) -> str:
        """The hash of the revision that it was made of."""
        return str(self.document["labels"].get(names.LABEL_SPEC, ""))

    @functools.cached_property
    def content(self) -> Revision:
        """The revision that it was made of."""
        return manifest.record(self.document["content"])

    def aimed(self, devices: str, target: str, bound: int) -> Json:
        """Write the same configuration for the devices below another bound; the service takes no other change of these."""
        kept = {
            key: self.document[key]
            for key in ("id", "labels", "priority", "metrics", "content")
            if key in self.document
        }
        return {**kept, "targetCondition": names.condition(devices, target, bound)}


@attrs.frozen
class Seen:
    """A target as it is now."""

    target: str
    configs: tuple[Config, ...]
    """The highest priority first."""

    @classmethod
    def read(cls, target: str, documents: Iterable[Mapping[str, Any]]) -> Seen | None:
        """Pick a target's configurations out of all of the hub; None when there are none."""
        own = [Config.read(each) for each in documents if owner(each) == target]
        own.sort(key=lambda each: (each.priority, each.created), reverse=True)
        return cls(target, tuple(own)) if own else None

    @property
    def ranked(self) -> dict[str, int]:
        """The bounds by revision, the newest first."""
        return {each.revision: each.bound for each in self.configs}

    @property
    def traffic(self) -> Traffic:
        """Which share of the devices is told to run what."""
        return rings.table(self.ranked)

    @property
    def version(self) -> str:
        """Another one after every change."""
        return digest([[each.name, each.bound, each.etag] for each in self.configs])[:16]

    def find(self, revision: str) -> Config | None:
        """Find the configuration of a revision."""
        return next((each for each in self.configs if each.revision == revision), None)

    def state(self, url: str) -> EndpointState:
        """Show it as any target is shown, the oldest revision first."""
        revisions = tuple(RevisionState(each.content, ready=True) for each in reversed(self.configs))
        return EndpointState(self.target, url, revisions, self.traffic, self.version, settled=True)


def owner(document: Mapping[str, Any]) -> str | None:
    """Name the target of a configuration; None when it is not ours."""
    found = (document.get("labels") or {}).get(names.LABEL_TARGET)
    return str(found) if found else None
