"""An endpoint as the simulator keeps it: the service's message, and what answers behind it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.simulate.vertex.checks import check_split
from modeldeploy.simulate.vertex.errors import not_found, precondition
from modeldeploy.simulate.vertex.replicas import Fleet


@attrs.define(eq=False)
class Deployed:
    """One deployed model: the service's message, and its processes."""

    message: Any
    fleet: Fleet
    model_id: str
    going: bool = False
    """Whether it is being undeployed or changed."""
    leaving: bool = False
    """Whether it is being undeployed."""

    @property
    def id(self) -> str:
        """Its id on the endpoint."""
        return str(self.message.id)


@attrs.define(eq=False)
class Endpoint:
    """One endpoint; whoever reads or changes it holds the world's lock."""

    message: Any
    deployed: dict[str, Deployed] = attrs.field(factory=dict)
    reserved: set[str] = attrs.field(factory=set)
    """Ids of models that are being deployed."""

    @property
    def name(self) -> str:
        """Its name as a resource."""
        return str(self.message.name)

    @property
    def id(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    def find(self, deployed: str) -> Deployed:
        """Find a deployed model."""
        found = self.deployed.get(deployed)
        if found is None:
            kind = "DeployedModel"
            raise not_found(kind, f"{self.name} {deployed}")
        return found

    def check_split(self, split: Mapping[str, int], also: str = "") -> None:
        """Refuse a traffic table that is none, or that sends anything to a model that is being undeployed; ``also`` is known as well."""
        check_split(split, {*self.deployed, *({also} if also else ())})
        leaving = [key for key, each in self.deployed.items() if each.leaving and split.get(key)]
        if leaving:
            raise precondition(f"DeployedModel {leaving[0]} of {self.name} is being undeployed.")

    def draw(self) -> Deployed:
        """Draw the deployed model that answers the next request, by the traffic split."""
        split = {key: value for key, value in self.message.traffic_split.items() if value and key in self.deployed}
        if not split:
            message = f"Endpoint {self.name} doesn't have traffic_split."
            raise precondition(message)
        keys = list(split)
        drawn = random.choices(keys, weights=[split[key] for key in keys])[0]  # noqa: S311 - traffic, not a secret
        return self.deployed[drawn]
