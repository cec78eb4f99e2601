"""Brings the uploaded bytes of a deployment into a directory, as the service mounts them into a container."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import attrs

from modeldeploy.simulate.azureml.arm_ids import asset_of
from modeldeploy.simulate.azureml.assets import Asset, Assets
from modeldeploy.simulate.azureml.blobs import Store
from modeldeploy.simulate.azureml.errors import ServiceError, bad_request
from modeldeploy.simulate.azureml.exchange import Json

_MOUNT = "azureml-models"
_BLOB = re.compile(r"https?://[^/]+/[^/]+/(?P<container>[^/?]+)/(?P<name>[^?]+)(?:\?.*)?")


@attrs.define(eq=False)
class Materials:
    """Where deployments take what they are made of; ``container`` is the one of the workspace's datastore."""

    codes: Assets
    models: Assets
    environments: Assets
    blobs: Store
    container: str

    def check(self, properties: Json) -> None:
        """Raise the service's error for a deployment that names what is not there, or lacks what it needs."""
        environment = self.environment(properties)
        model = self.model(properties)
        code = properties.get("codeConfiguration")
        if code:
            asset_of(code["codeId"], self.codes)
        if environment is None or (not code and not environment.properties["inferenceConfig"]):
            self._check_scripted(model)

    def check_batch(self, properties: Json) -> None:
        """Raise the service's error for a batch deployment that names what is not there, or lacks what it needs."""
        self.environment(properties)
        self.model(properties)
        code = properties.get("codeConfiguration")
        if code:
            asset_of(code["codeId"], self.codes)
        if not code or not properties.get("environmentId"):
            raise bad_request("A batch deployment needs an environment and a scoring script.")
        if not properties.get("compute"):
            raise bad_request("A batch deployment needs a compute.")

    @staticmethod
    def _check_scripted(model: Asset | None) -> None:
        if model is not None and str(model.properties["modelType"]).lower() in {"mlflow_model", "triton_model"}:
            raise ServiceError(
                501, "NotSimulated", "The rehearsal does not simulate deployments without a script or an image."
            )
        text = "A deployment needs an environment, and a scoring script or an environment with routes."
        raise ServiceError(400, "BadArgument", text)

    def environment(self, properties: Json) -> Asset | None:
        """Find the environment of a deployment."""
        named = properties.get("environmentId")
        return asset_of(named, self.environments) if named else None

    def model(self, properties: Json) -> Asset | None:
        """Find the model of an online deployment (a text) or of a batch deployment (a reference)."""
        named = properties.get("model")
        named = named.get("assetId") if isinstance(named, dict) else named
        return asset_of(named, self.models) if named else None

    def bring(self, directory: Path, properties: Json, say: Callable[[str], None]) -> dict[str, str]:
        """Copy model and code into a directory, and give the environment that says where they are."""
        environment = dict(properties.get("environmentVariables") or {})
        model = self.model(properties)
        if model is not None:
            environment["AZUREML_MODEL_DIR"] = str(self._bring_model(directory, properties, model, say))
        code = properties.get("codeConfiguration")
        if code:
            uri = asset_of(code["codeId"], self.codes).properties["codeUri"]
            # The folder that was uploaded keeps its name, as it does below /var/azureml-app.
            self._fetch(uri, directory / "app")
            environment["AML_APP_ROOT"] = str(directory / "app" / uri.rpartition("/")[2])
            environment["AZUREML_ENTRY_SCRIPT"] = code["scoringScript"]
        return environment

    def _bring_model(self, directory: Path, properties: Json, model: Asset, say: Callable[[str], None]) -> Path:
        mount = str(properties.get("modelMountPath") or _MOUNT).lstrip("/")
        place = directory / mount / model.name / model.version
        count = self._fetch(model.properties["modelUri"], place)
        say(f"Downloaded {count} files of model {model.name}:{model.version} to {place}")
        return place

    def _fetch(self, uri: str, into: Path) -> int:
        container, prefix = place_of(uri, self.container)
        into.mkdir(parents=True, exist_ok=True)
        count = self.blobs.fetch(container, prefix, into)
        if not count:
            raise ServiceError(400, "BadArgument", f"There is nothing at {uri}.")
        return count


def place_of(uri: str, default: str) -> tuple[str, str]:
    """Find container and name that a URI names: a datastore's path, or a blob's URL.

    >>> place_of("azureml://datastores/workspaceblobstore/paths/LocalUpload/0/model", "store")
    ('store', 'LocalUpload/0/model')
    >>> place_of("http://127.0.0.1:80/account/codes/folder", "store")
    ('codes', 'folder')
    """
    if "/paths/" in uri:
        return default, uri.partition("/paths/")[2]
    found = _BLOB.fullmatch(uri)
    if found is None:
        raise bad_request(f"{uri} names neither a path of a datastore nor a blob.")
    return found["container"], found["name"]
