"""What the steps ask of the account: components, groups, deployments and records, each act safe to repeat."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.backends.cloud.naming import digest, spec
from modeldeploy.backends.greengrass import artifact, names, recipe
from modeldeploy.backends.greengrass.client import Client
from modeldeploy.backends.greengrass.described import BOUND, DEPLOYMENT, NOTHING, OWED, Group, Seen, attributes
from modeldeploy.backends.greengrass.devices import Fleet
from modeldeploy.backends.greengrass.errors import AlreadyThereError, ChangedError
from modeldeploy.backends.greengrass.pace import Pace
from modeldeploy.backends.greengrass.recipe import Limits
from modeldeploy.backends.greengrass.storage import Position, Storage
from modeldeploy.errors import ConflictError, IntegrityError, NotFoundError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import Revision

_RECORD = "revision.json"
_TOKEN_CHARS = 32


@attrs.define(eq=False)
class Provider:
    """One account, as the steps use it."""

    client: Client
    storage: Storage
    fleet: Fleet
    limits: Limits
    pace: Pace
    home: Path
    """Where archives are built before they are sent."""
    tags: Mapping[str, str]
    clock: Callable[[], float]
    _records: dict[tuple[str, str, str], Revision] = attrs.field(factory=dict)

    def seen(self, target: str) -> Seen | None:
        """Read a target as it is now."""
        return Seen.read(self.client, target)

    def existing(self, target: str) -> Seen:
        """Read a target that is there; NotFoundError otherwise."""
        seen = self.seen(target)
        if seen is None:
            message = f"there is no target {target!r}"
            raise NotFoundError(message, hint="deploy a model to it first", context={"backend": "greengrass"})
        return seen

    # Records

    def put_record(self, target: str, revision: Revision) -> None:
        """Write down what a revision is."""
        self.storage.put(names.place(target, revision.id) + _RECORD, recipe.dump(to_json(revision)))

    def revision(self, group: Group) -> Revision:
        """Read what a revision is; it never changes, so it is read once."""
        key = (group.target, group.revision, group.spec)
        if key not in self._records:
            found = from_json(
                Revision, json.loads(self.storage.get(names.place(group.target, group.revision) + _RECORD))
            )
            if spec(found) != group.spec:
                message = f"the record of revision {group.revision!r} of {group.target!r} is of another revision"
                raise IntegrityError(message, hint="somebody changed the bucket; deploy again")
            self._records[key] = found
        return self._records[key]

    # The artefact and the component

    def ship(self, target: str, revision: Revision, position: Position) -> Position:
        """Send the next slice of a revision's archive."""
        path, content = self._archive(revision)
        return self.storage.send(self._key(target, revision, content), path, content, position)

    def _archive(self, revision: Revision) -> tuple[Path, str]:
        """Build the archive of a revision, or find it built; the same revision gives the same bytes."""
        bundle = Bundle.open(Path(revision.model.uri), expect=revision.model.digest)
        path = artifact.build(bundle, self.home / "greengrass" / f"{revision.model.digest.removeprefix('sha256:')}.zip")
        return path, artifact.sha256(path)

    @staticmethod
    def _key(target: str, revision: Revision, content: str) -> str:
        return f"{names.place(target, revision.id)}{content[:16]}/{artifact.FILE}"

    def make_component(self, target: str, revision: Revision) -> None:
        """Make the component version of a revision whose archive is there; one that is there already is looked at."""
        _path, content = self._archive(revision)
        document = recipe.component(target, revision, self.storage.url(self._key(target, revision, content)))
        try:
            self.client.greengrass(
                "create_component_version", inlineRecipe=recipe.dump(document), tags=self._tags(target, revision)
            )
        except AlreadyThereError:
            self.component(target, revision)

    def _tags(self, target: str, revision: Revision) -> dict[str, str]:
        own = {names.TAG_TARGET: target, names.TAG_REVISION: revision.id, names.TAG_SPEC: spec(revision)}
        return {**self.tags, **own}

    def component(self, target: str, revision: Revision) -> dict[str, Any] | None:
        """Find the component version of a revision; ConflictError when it is somebody else's."""
        arn = f"{self._component_arn(target)}:versions:{names.version(target, revision)}"
        found = self.client.find("greengrassv2", "describe_component", arn=arn)
        if found is not None and found.get("tags", {}).get(names.TAG_SPEC) != spec(revision):
            message = (
                f"component {names.component(target)} {found['componentVersion']} is not of revision {revision.id!r}"
            )
            raise ConflictError(message, hint="delete it, or deploy to another target")
        return found

    def _component_arn(self, target: str) -> str:
        partition = self.client.session.get_partition_for_region(self.client.region)
        return f"arn:{partition}:greengrass:{self.client.region}:{self.client.account}:components:{names.component(target)}"

    def delete_components(self, target: str, revision: str | None = None) -> None:
        """Delete the component versions of a revision, or of all of a target; what is gone already is no error."""
        listed = self.client.pages(
            "greengrassv2", "list_component_versions", "componentVersions", arn=self._component_arn(target)
        )
        try:
            arns = [each["arn"] for each in listed]
        except NotFoundError:
            return
        for arn in arns:
            found = self.client.find("greengrassv2", "describe_component", arn=arn)
            if found is not None and revision in {None, found.get("tags", {}).get(names.TAG_REVISION)}:
                self.client.find("greengrassv2", "delete_component", arn=arn)

    # Groups and deployments

    def make_group(self, target: str, revision: Revision, *, bound: int, order: int) -> None:
        """Make the group of a revision; one that is there already is for the next look."""
        owed = _token(names.group(target, revision.id), 0) if bound else NOTHING
        given = attributes(
            bound=bound,
            order=order,
            spec=spec(revision),
            component=names.version(target, revision),
            deployment=NOTHING,
            owed=owed,
        )
        given["attributePayload"].pop("merge")
        try:
            self.client.iot(
                "create_thing_group", thingGroupName=names.group(target, revision.id), thingGroupProperties=given
            )
        except AlreadyThereError:
            return

    def owe(self, group: Group) -> None:
        """Note on a group that it will gain devices, and that they are still to be given its revision."""
        self._update(group, {OWED: _token(group.name, group.version)})

    def aim(self, group: Group, bound: int) -> None:
        """Change the bound of a group."""
        self._update(group, {BOUND: bound})

    def _update(self, group: Group, given: Mapping[str, str | int]) -> None:
        """Change attributes of a group that is as it was read."""
        changed = attributes(**given)
        try:
            self.client.iot(
                "update_thing_group",
                thingGroupName=group.name,
                thingGroupProperties=changed,
                expectedVersion=group.version,
            )
        except ChangedError as error:
            message = f"somebody changed thing group {group.name!r} a moment ago"
            raise ConflictError(message, hint="observe the target again and decide anew") from error

    def deploy(self, group: Group) -> None:
        """Make the deployment that is owed to the devices of a group, and note it there."""
        document = recipe.deployment(group.arn, group.target, self.revision(group), self.limits)
        document["tags"] |= self.tags
        # The service gives the same answer to the same token for eight hours.
        made = self.client.greengrass("create_deployment", clientToken=group.owed, **document)
        self._update(group, {DEPLOYMENT: made["deploymentId"], OWED: NOTHING})

    def drop_group(self, group: Group) -> None:
        """Stop and delete the deployments of a group, then the group; the devices keep what they have."""
        listed = self.client.pages(
            "greengrassv2", "list_deployments", "deployments", targetArn=group.arn, historyFilter="ALL"
        )
        for each in list(listed):
            if each["deploymentStatus"] == "ACTIVE":
                self.client.find("greengrassv2", "cancel_deployment", deploymentId=each["deploymentId"])
            self.client.find("greengrassv2", "delete_deployment", deploymentId=each["deploymentId"])
        self.client.find("iot", "delete_thing_group", thingGroupName=group.name)


def _token(group: str, version: int) -> str:
    """Name a deployment that does not exist yet, another one at every version of its group."""
    return digest([group, version])[:_TOKEN_CHARS]
