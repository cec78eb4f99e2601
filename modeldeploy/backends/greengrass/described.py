"""What the account shows, read: the groups of a target's devices, one for each revision, the newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import digest
from modeldeploy.backends.greengrass import names
from modeldeploy.backends.greengrass.client import Client
from modeldeploy.errors import ConflictError
from modeldeploy.values.serving import Traffic

BOUND, ORDER, SPEC, COMPONENT, DEPLOYMENT, OWED = "bound", "order", "spec", "component", "deployment", "owed"
NOTHING = "none"
"""Attributes of groups cannot be empty."""


@attrs.frozen
class Group:
    """The group of the devices that are to run a revision, and the place below which devices belong to it."""

    name: str
    arn: str
    target: str
    revision: str
    bound: int
    order: int
    """Rises with every revision of the target."""
    spec: str
    """The hash of the revision."""
    component: str
    """The component version of the revision."""
    version: int
    """Of the group, as the registry counts its changes."""
    deployment: str
    """The deployment that the group has; ``NOTHING`` before the first."""
    owed: str
    """Names a deployment that is still to be made, for devices that the group gains; ``NOTHING`` when none is."""

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Group:
        """Read a group of ours; ConflictError when somebody changed its attributes."""
        target, revision = names.parse(found["thingGroupName"]) or ("", "")
        given = found.get("thingGroupProperties", {}).get("attributePayload", {}).get("attributes", {})
        try:
            return cls(
                found["thingGroupName"], found["thingGroupArn"], target, revision, int(given[BOUND]), int(given[ORDER]),
                given[SPEC], given[COMPONENT], int(found["version"]), given[DEPLOYMENT], given[OWED],
            )  # fmt: skip
        except (KeyError, ValueError) as error:
            message = f"somebody changed the attributes of thing group {found['thingGroupName']!r}: {error}"
            raise ConflictError(message, hint="delete the group, and deploy again") from error


@attrs.frozen
class Seen:
    """A target as it is now."""

    target: str
    groups: tuple[Group, ...]
    """The newest revision first."""

    @classmethod
    def read(cls, client: Client, target: str) -> Seen | None:
        """Read a target's groups; None when there are none."""
        listed = client.pages("iot", "list_thing_groups", "thingGroups", namePrefixFilter=names.group(target))
        found = [client.find("iot", "describe_thing_group", thingGroupName=each["groupName"]) for each in list(listed)]
        groups = sorted((Group.read(each) for each in found if each), key=lambda group: (-group.order, group.name))
        return cls(target, tuple(groups)) if groups else None

    @property
    def ranked(self) -> dict[str, int]:
        """The bounds by revision, the newest first."""
        return {each.revision: each.bound for each in self.groups}

    @property
    def traffic(self) -> Traffic:
        """Which share of the devices is to run what."""
        return rings.table(self.ranked)

    @property
    def version(self) -> str:
        """Another one after every change."""
        return digest([[each.name, each.bound, each.version] for each in self.groups])[:16]

    def find(self, revision: str) -> Group | None:
        """Find the group of a revision."""
        return next((each for each in self.groups if each.revision == revision), None)


def attributes(**given: str | int) -> dict[str, Any]:
    """Write attributes of a group, beside those that it has."""
    values = {name: str(value) for name, value in given.items()}
    return {"attributePayload": {"attributes": values, "merge": True}}
