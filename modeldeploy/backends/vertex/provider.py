"""Endpoints, deployed models and versions of models as they are at the service: reading, and asking for what may be there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.cloud.naming import spec as spec_of
from modeldeploy.backends.vertex import names, translate
from modeldeploy.backends.vertex.client import Client, none_if_missing, types
from modeldeploy.backends.vertex.described import Deployed, Progress, Seen, progress
from modeldeploy.backends.vertex.entry import Container, Shipment
from modeldeploy.backends.vertex.errors import BusyError, TakenError
from modeldeploy.backends.vertex.ship import Shipper
from modeldeploy.backends.vertex.storage import Storage
from modeldeploy.backends.vertex.translate import Defaults
from modeldeploy.errors import ConflictError
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic

_FOREIGN = "delete it by the tool that made it, or give yours another name"
_ALL = {"0": 100}
"""All traffic to the deployed model that is just being made, in the API's own way to say so."""


class Provider:
    """One project in one region. What a version of a model is for never changes and is remembered; everything else is read each time."""

    def __init__(self, client: Client, defaults: Defaults) -> None:
        self.client = client
        self.defaults = defaults
        self.storage = Storage(client)
        self.shipper = Shipper(self.storage)
        self._revisions: dict[tuple[str, str], Revision | None] = {}

    # Endpoints

    def resource(self, endpoint: str) -> str:
        """Give the whole name of an endpoint."""
        return f"{self.client.access.parent}/endpoints/{endpoint}"

    def entity(self, endpoint: str) -> Any:
        """Read an endpoint as the API's message; None when there is none, or none with this name can be."""
        if not is_name(endpoint):
            return None
        asked = {"name": self.resource(endpoint)}
        return none_if_missing(lambda: self.client.call("endpoint", "get_endpoint", asked, endpoint=endpoint))

    def seen(self, endpoint: str) -> Seen | None:
        """Read an endpoint with what is deployed to it and what goes on; None when there is none."""
        # First what goes on: what ends in between is then shown by the endpoint, never neither.
        moving = self.client.under_way(self.resource(endpoint)) if is_name(endpoint) else []
        found = self.entity(endpoint)
        return self.read(found, moving) if found is not None else None

    def read(self, found: Any, moving: list[Any] | None = None) -> Seen:
        """Read an endpoint's message, and the versions of what is deployed to it."""
        return Seen.of(found, [self._deployed(each) for each in found.deployed_models], moving or ())

    def _deployed(self, found: Any) -> Deployed:
        model = found.model.partition("@")[0]
        version = found.model_version_id or found.model.partition("@")[2]
        told = str(found.status.message) if found.status else ""
        # A model may be deleted and made anew, whose first version has the same number.
        key = (f"{model}@{version}", str(found.create_time))
        if key not in self._revisions:
            self._revisions[key] = self._revision(key[0])
        return Deployed(found.id, model, version, self._revisions[key], told)

    def _revision(self, version: str) -> Revision | None:
        model = none_if_missing(lambda: self.client.call("model", "get_model", {"name": version}))
        return translate.revision(model) if model is not None else None

    def endpoints(self) -> list[str]:
        """Name the endpoints that bear our label."""
        asked = {"parent": self.client.access.parent, "filter": f"labels.{names.LABEL_ENDPOINT}:*"}
        found = [Seen.of(each) for each in self.client.every("endpoint", "list_endpoints", asked)]
        return [each.name for each in found if each.ours]

    @staticmethod
    def refuse_foreign(seen: Seen) -> None:
        """Refuse to touch an endpoint that does not bear our label, or that others have deployed to."""
        foreign = [each.id for each in seen.deployed if each.revision is None]
        if not seen.ours or foreign:
            what = f"with deployed models {foreign} that" if seen.ours else "that"
            message = f"there is an endpoint {seen.name!r} {what} modeldeploy did not make"
            raise ConflictError(message, hint=_FOREIGN)

    def put_endpoint(self, asked: EndpointSpec) -> str:
        """Ask for an endpoint; one that is being made by an earlier request of ours is waited for."""
        request = {
            "parent": self.client.access.parent,
            "endpoint": translate.endpoint(asked, self.defaults),
            "endpoint_id": asked.name,
        }
        return self._begin("create_endpoint", request, endpoint=asked.name)

    def put_traffic(self, seen: Seen, table: Traffic) -> None:
        """Write a whole table over the endpoint as it was read; BusyError when it was changed in between."""
        made = types()
        ids = {each.name: each.id for each in seen.deployed}
        changed = made.Endpoint(
            name=seen.resource,
            etag=seen.etag,
            traffic_split={ids[name]: percent for name, percent in table.live.items()},
            labels={**seen.labels, names.LABEL_SERIAL: str(seen.serial + 1)},
        )
        # The mask is written out, and not drawn from what is set: an empty table is a table.
        mask = {"paths": ["traffic_split", "labels"]}
        request = {"endpoint": changed, "update_mask": mask}
        self.client.call("endpoint", "update_endpoint", request, endpoint=seen.name)

    def delete_endpoint(self, endpoint: str) -> str:
        """Ask for an endpoint to be gone; nothing may be deployed to it."""
        return self._begin("delete_endpoint", {"name": self.resource(endpoint)}, endpoint=endpoint)

    # What is deployed

    def deploy(self, seen: Seen, revision: Revision, version: str) -> str:
        """Ask for a revision to be deployed; it takes all traffic where nothing takes any, and else none."""
        request = {
            "endpoint": seen.resource,
            "deployed_model": translate.deployed_model(revision, version, self.defaults),
            # An empty split leaves the table as it is.
            "traffic_split": {} if seen.traffic.live else _ALL,
        }
        return self._begin("deploy_model", request, endpoint=seen.name, revision=revision.id)

    def undeploy(self, seen: Seen, found: Deployed) -> str:
        """Ask for a deployed model to be gone."""
        request = {"endpoint": seen.resource, "deployed_model_id": found.id}
        return self._begin("undeploy_model", request, endpoint=seen.name, revision=found.name)

    def _begin(self, method: str, request: Any, *, kind: str = "endpoint", **about: str) -> str:
        try:
            return self.client.begin(kind, method, request, **about)
        except TakenError as error:
            message = f"the id is taken, and what bears it is not shown yet: {error.message}"
            raise BusyError(message) from error

    # Models

    def version(self, revision: Revision) -> str | None:
        """Find the version that was registered for a revision, by its alias; ConflictError when the model is none of ours."""
        name = f"{self.client.access.parent}/models/{revision.model.name}"
        found = none_if_missing(lambda: self.client.call("model", "get_model", {"name": f"{name}@{revision.id}"}))
        if found is None:
            return None
        if dict(found.labels).get(names.LABEL_SPEC) != names.label(spec_of(revision)):
            message = f"model {revision.model.name!r} has another version with the alias {revision.id!r}"
            raise ConflictError(message, hint="give the model another name, or take the alias away")
        return f"{found.name.partition('@')[0]}@{found.version_id}"

    def register(self, revision: Revision, container: Container, shipment: Shipment, extra: Mapping[str, str]) -> str:
        """Ask for a version of a model, or for the model with its first one."""
        parent, name = self.client.access.parent, revision.model.name
        made = translate.model(revision, container, self.shipper.url(shipment), extra, self.defaults)
        resource = f"{parent}/models/{name}"
        known = none_if_missing(lambda: self.client.call("model", "get_model", {"name": resource}))
        if known is None:
            request = {"parent": parent, "model": made, "model_id": name}
            return self._begin("upload_model", request, kind="model", model=name)
        if dict(known.labels).get(names.LABEL_MODEL) != name:
            message = f"there is a model {name!r} that modeldeploy did not register"
            raise ConflictError(message, hint="give the model another name")
        # The alias "default" is not asked for: the first version keeps it until somebody moves it.
        request = {"parent": parent, "model": made, "parent_model": resource}
        return self._begin("upload_model", request, kind="model", model=name)

    def registering(self, model: str) -> list[Any]:
        """Give the operations of a model that have not ended."""
        return self.client.under_way(f"{self.client.access.parent}/models/{model}")

    # Operations

    def progress(self, operation: str) -> Progress | None:
        """Look at an operation; None when its name is not known, or it is gone."""
        found = self.client.operation(operation) if operation else None
        return progress(found) if found is not None else None
