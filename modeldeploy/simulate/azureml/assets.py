"""Versions of code, models and environments: their bytes never change."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.simulate.azureml import resources
from modeldeploy.simulate.azureml.errors import bad_request, not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import World

# The text that azure-ai-ml looks for (constants ASSET_PATH_ERROR, 1.35.2).
_CHANGED = "(UserError) The {noun} path cannot be changed: a {kind} with this name and version already exists, and its path is immutable."


# Which versions a list has, by whether they are archived; all of them when nothing is said.
_VIEWS = {"activeonly": (False,), "archivedonly": (True,)}


@attrs.frozen
class Kind:
    """One kind of assets: its name in paths, the properties that never change, and what an answer has at least."""

    plural: str
    fixed: tuple[str, ...]
    defaults: Mapping[str, object]


CODES = Kind(
    "codes",
    ("codeUri",),
    {"description": None, "tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False},
)
MODELS = Kind(
    "models",
    ("modelUri", "modelType"),
    {
        "description": None, "tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False,
        "flavors": {}, "modelType": "custom_model", "modelUri": None, "jobName": None,
    },
)  # fmt: skip
ENVIRONMENTS = Kind(
    "environments",
    ("image", "condaFile", "inferenceConfig", "build"),
    {
        "description": None, "tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False,
        "environmentType": "UserCreated", "image": None, "condaFile": None, "build": None, "osType": "Linux", "inferenceConfig": None,
        "autoRebuild": "Disabled",
    },
)  # fmt: skip


@attrs.define(eq=False)
class Asset:
    """One version."""

    name: str
    version: str
    properties: Json
    born: Born


@attrs.define(eq=False)
class Assets:
    """All versions of one kind."""

    world: World
    kind: Kind
    _versions: dict[tuple[str, str], Asset] = attrs.field(factory=dict)

    def get(self, name: str, version: str) -> Asset:
        """Find a version; the service's error when it is not there."""
        with self.world.lock:
            found = self._versions.get((name, version))
        if found is None:
            raise not_found(f"Could not find asset with ID: {self.id(name, version)}")
        return found

    def id(self, name: str, version: str) -> str:
        """Name a version."""
        return f"{self.world.site.id}/{self.kind.plural}/{name}/versions/{version}"

    def put(self, request: Request, name: str, version: str) -> Answer:
        """Create a version, or change what may change of it."""
        asked = _read(request.json().get("properties", {}))
        with self.world.lock:
            old = self._versions.get((name, version))
            asset = self._created(name, version, asked) if old is None else self._changed(old, asked)
            return answer(201 if old is None else 200, self._told(asset))

    def _created(self, name: str, version: str, asked: Json) -> Asset:
        asset = Asset(name, version, {**self.kind.defaults, **asked}, Born.now(self.world))
        self._versions[name, version] = asset
        return asset

    def _changed(self, asset: Asset, asked: Json) -> Asset:
        for key in self.kind.fixed:
            if key in asked and asked[key] != asset.properties[key]:
                noun = "asset" if key.endswith("Uri") else key
                raise bad_request(
                    _CHANGED.format(noun=noun, kind=self.kind.plural.removesuffix("s")), "ImmutableProperty"
                )
        asset.properties.update(asked)
        asset.born.modified = self.world.clock.now()
        return asset

    def show(self, _request: Request, name: str, version: str) -> Answer:
        """Answer a version."""
        asset = self.get(name, version)
        with self.world.lock:
            return answer(200, self._told(asset))

    def versions(self, request: Request, name: str) -> Answer:
        """Answer the versions of a name, the newest first; ``hash`` keeps those of these bytes."""
        with self.world.lock:
            found = [each for each in self._versions.values() if each.name == name]
            wanted = request.query.get("hash")
            if wanted is not None:
                found = [each for each in found if each.properties["properties"].get("hash_sha256") == wanted]
            elif not found:
                raise not_found(f"Could not find asset with name: {name}")
            seen = _VIEWS.get(request.query.get("listviewtype", "").lower(), (False, True))
            found = [each for each in found if each.properties["isArchived"] in seen]
            found.sort(key=lambda each: each.born.created, reverse=True)
            top = int(request.query.get("$top", len(found)))
            return answer(200, {"value": [self._told(each) for each in found[:top]]})

    def container(self, _request: Request, name: str) -> Answer:
        """Answer what is known of a name: its latest and its next version."""
        with self.world.lock:
            numbers = [each.version for each in self._versions.values() if each.name == name]
            if not numbers:
                raise not_found(f"Could not find asset with name: {name}")
            found = max(
                (each for each in self._versions.values() if each.name == name), key=lambda each: each.born.created
            )
            following = max((int(each) for each in numbers if each.isdecimal()), default=0) + 1
            told = {
                "latestVersion": found.version,
                "nextVersion": str(following),
                "isArchived": False,
                "description": None,
            }
            return answer(
                200, self._resource(name, self.kind.plural, found.born, {**told, "tags": {}, "properties": {}})
            )

    def _told(self, asset: Asset) -> Json:
        tail = f"{self.kind.plural}/{asset.name}/versions/{asset.version}"
        return resources.resource(self.world, tail, f"{self.kind.plural}/versions", asset.born, asset.properties)

    def _resource(self, name: str, kind: str, born: Born, properties: Json) -> Json:
        return resources.resource(self.world, f"{self.kind.plural}/{name}", kind, born, properties)


def _read(asked: Json) -> Json:
    """Leave out what is null, and keep what stands in maps of texts as text."""
    found = {key: value for key, value in asked.items() if value is not None}
    for name in ("tags", "properties"):
        if name in found:
            found[name] = {key: value if isinstance(value, str) else str(value) for key, value in found[name].items()}
    return found
