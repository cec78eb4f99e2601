"""What the reference provider holds: endpoints, revisions and jobs that take several looks to be ready."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping

import attrs

from modeldeploy.values.assignment import KEY_HEADER, from_header, key_text
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.serving import EndpointSpec, EndpointState, Payload, Revision, RevisionState, Traffic
from modeldeploy.values.ticket import Phase


@attrs.define
class Member:
    """A revision at the provider."""

    revision: Revision
    looks: int
    """How many looks until it is ready."""
    failure: str = ""


@attrs.define
class Endpoint:
    """An endpoint at the provider."""

    spec: EndpointSpec
    members: dict[str, Member] = attrs.field(factory=dict)
    traffic: Traffic = attrs.field(factory=Traffic)
    pending: Traffic | None = None
    looks: int = 0
    changes: int = 0
    asked: int = 0

    @property
    def target(self) -> Traffic:
        """The table that holds once everything in flight has landed."""
        return self.traffic if self.pending is None else self.pending

    @property
    def version(self) -> str:
        """Another one after every change."""
        return f"{self.spec.name}@{self.changes}"

    @property
    def settled(self) -> bool:
        """Whether nothing is in flight."""
        return self.pending is None and all(not member.looks for member in self.members.values())

    def used(self) -> set[str]:
        """Name the revisions that get requests or copies, now or when the table in flight has landed."""
        tables = (self.traffic, self.target)
        return {
            name for table in tables for part in (table.live, table.shadow) for name, share in part.items() if share
        }

    def land(self) -> None:
        """Count one look at the table in flight; after the last one it holds."""
        self.looks -= 1
        if self.looks <= 0 and self.pending is not None:
            self.traffic, self.pending = self.pending, None
            self.changes += 1

    def state(self) -> EndpointState:
        """Show it as any provider is shown."""
        return EndpointState(
            name=self.spec.name,
            url=f"memory://{self.spec.name}",
            revisions=tuple(
                RevisionState(member.revision, ready=not (member.looks or member.failure), note=member.failure)
                for member in self.members.values()
            ),
            traffic=self.traffic,
            version=self.version,
            settled=self.settled,
        )


@attrs.define
class Job:
    """A job at the provider, done after ``steps`` looks."""

    spec: BatchSpec
    looks: int
    steps: int
    phase: Phase = Phase.RUNNING


@attrs.frozen
class Write:
    """One change at the provider."""

    verb: str
    target: str
    detail: str


def key_of(spec: str, payload: Payload) -> str:
    """Read the key of a request: from our own header, from the one that ``spec`` names, or from a field of a JSON body."""
    if not spec:
        return ""
    source, _colon, name = spec.partition(":")
    given = payload.headers.get(KEY_HEADER) or (payload.headers.get(name) if source == "header" else None)
    if given or source == "header":
        return from_header(given or "")
    try:
        data = json.loads(payload.body)
    except ValueError:
        return ""
    return (key_text(data.get(name)) or "") if isinstance(data, dict) else ""


def revision_at(live: Mapping[str, int], percent: int) -> str:
    """Find the revision whose stretch of the table holds ``percent``."""
    ends = itertools.accumulate(live.values())
    return next(revision for revision, end in zip(live, ends, strict=True) if percent < end)
