"""What the service says of an endpoint and its deployments, as values; pure, and tolerant of members that are not there."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.azureml import names
from modeldeploy.backends.cloud.naming import digest
from modeldeploy.values.serving import WHOLE, Traffic


class State(enum.StrEnum):
    """The ``provisioningState`` of an endpoint or deployment; one that is not known here is in transit."""

    CREATING = "Creating"
    UPDATING = "Updating"
    SCALING = "Scaling"
    DELETING = "Deleting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @classmethod
    def of(cls, text: str | None) -> State:
        """Read it; a word that came up later counts as a change under way."""
        return cls(text) if text in set(cls) else cls.UPDATING

    @property
    def settled(self) -> bool:
        """Whether nothing is in flight."""
        return self in {self.SUCCEEDED, self.FAILED, self.CANCELED}

    @property
    def broken(self) -> bool:
        """Whether the last operation did not succeed."""
        return self in {self.FAILED, self.CANCELED}


@attrs.frozen
class Deployment:
    """A deployment; its name is the revision's id."""

    name: str
    state: State
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])
    variables: Mapping[str, str] = attrs.field(factory=dict[str, str])

    @classmethod
    def of(cls, entity: Any) -> Deployment:
        """Read an entity of the SDK."""
        state = State.of(entity.provisioning_state)
        return cls(entity.name, state, dict(entity.tags or {}), dict(entity.environment_variables or {}))

    @property
    def spec(self) -> str:
        """The hash of all that its revision is; empty when it is none of ours."""
        return self.tags.get(names.TAG_SPEC, "")


@attrs.frozen
class Seen:
    """An endpoint with its deployments."""

    name: str
    state: State
    uri: str = ""
    auth_mode: str = ""
    traffic: Traffic = attrs.field(factory=Traffic)
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])
    created: str = ""
    deployments: tuple[Deployment, ...] = ()

    @classmethod
    def of(cls, endpoint: Any, deployments: Iterable[Any] = ()) -> Seen:
        """Read entities of the SDK."""
        return cls(
            name=endpoint.name,
            state=State.of(endpoint.provisioning_state),
            uri=endpoint.scoring_uri or "",
            auth_mode=str(endpoint.auth_mode or "").lower(),
            traffic=table(endpoint.traffic or {}, endpoint.mirror_traffic or {}),
            tags=dict(endpoint.tags or {}),
            created=str((endpoint.properties or {}).get("createdAt", "")),
            deployments=tuple(sorted(map(Deployment.of, deployments), key=lambda each: each.name)),
        )

    @property
    def ours(self) -> bool:
        """Whether it bears our tag."""
        return self.tags.get(names.TAG_ENDPOINT) == self.name

    @property
    def settled(self) -> bool:
        """Whether nothing is in flight, neither at the endpoint nor at a deployment."""
        return self.state.settled and all(each.state.settled for each in self.deployments)

    @property
    def serial(self) -> int:
        """The number of tables that it was given."""
        text = self.tags.get(names.TAG_SERIAL, "0")
        return int(text) if text.isdecimal() else 0

    @property
    def version(self) -> str:
        """Another one after every change of ours."""
        there = [[each.name, each.spec] for each in self.deployments]
        table = [sorted(self.traffic.live.items()), sorted(self.traffic.copies.items())]
        return digest([self.created, self.serial, table, there])[:16]

    def find(self, revision: str) -> Deployment | None:
        """Find a deployment by its name, or None."""
        return next((each for each in self.deployments if each.name == revision), None)


def table(weights: Mapping[str, int], copies: Mapping[str, int]) -> Traffic:
    """Read a table of the service; one that does not sum to 100, which its SDK lets pass, is none."""
    whole = {name: int(percent) for name, percent in weights.items()}
    copied = {name: int(percent) for name, percent in copies.items() if percent}
    return Traffic(whole if sum(whole.values()) == WHOLE else {}, copied)
