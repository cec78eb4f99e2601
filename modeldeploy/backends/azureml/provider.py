"""Endpoints, deployments and assets as they are at the service: reading, and asking for what may be there already."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modeldeploy.backends.azureml import names, translate
from modeldeploy.backends.azureml.client import Client, none_if_missing
from modeldeploy.backends.azureml.described import Deployment, Seen
from modeldeploy.backends.azureml.entry import Environment
from modeldeploy.backends.azureml.errors import Said, said
from modeldeploy.backends.azureml.translate import Defaults
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.errors import ConflictError, ModelDeployError
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic

_FOREIGN = "delete it by the tool that made it, or give yours another name"


class Provider:
    """One workspace. What a deployment of ours serves never changes and is remembered; everything else is read each time."""

    def __init__(self, client: Client, defaults: Defaults) -> None:
        self.client = client
        self.defaults = defaults
        self._revisions: dict[str, Revision] = {}

    @functools.cached_property
    def location(self) -> str:
        """The region of the workspace, which never changes."""
        name = self.client.access.workspace
        return str(self.client.call(lambda sdk: sdk.workspaces.get(name)).location)

    # Endpoints

    def seen(self, endpoint: str) -> Seen | None:
        """Read an endpoint with its deployments; None when there is none, or none with this name can be."""
        found = self.entity(endpoint)
        if found is None:
            return None
        there = none_if_missing(lambda: self.client.call(lambda sdk: list(sdk.online_deployments.list(endpoint))))
        return Seen.of(found, there or ())

    def entity(self, endpoint: str) -> Any:
        """Read an endpoint as the SDK's entity; None when there is none."""
        if not is_name(endpoint):
            return None
        return none_if_missing(
            lambda: self.client.call(lambda sdk: sdk.online_endpoints.get(endpoint), endpoint=endpoint)
        )

    def endpoints(self) -> Iterator[str]:
        """Name the endpoints that bear our tag."""
        for each in self.client.call(lambda sdk: list(sdk.online_endpoints.list())):
            if (each.tags or {}).get(names.TAG_ENDPOINT) == each.name:
                yield each.name

    @staticmethod
    def refuse_foreign(seen: Seen) -> None:
        """Refuse to touch an endpoint that does not bear our tag, or that has deployments that do not."""
        foreign = [each.name for each in seen.deployments if not each.spec]
        if not seen.ours or foreign:
            what = f"with deployments {foreign} that" if seen.ours else "that"
            message = f"there is an endpoint {seen.name!r} {what} modeldeploy did not make"
            raise ConflictError(message, hint=_FOREIGN)

    def put_endpoint(self, asked: EndpointSpec) -> str:
        """Ask for an endpoint without deployments."""
        made = translate.endpoint(asked, self.defaults)
        return self.client.begin(lambda sdk: sdk.online_endpoints.begin_create_or_update(made), endpoint=asked.name)

    def put_traffic(self, seen: Seen, table: Traffic) -> str:
        """Ask for another table, with the endpoint as it is now."""
        made = self.entity(seen.name)
        if made is None or Seen.of(made).serial != seen.serial:
            message = f"endpoint {seen.name!r} was changed while its table was to be written"
            raise ConflictError(message, hint="observe it again and decide anew")
        translate.written(made, table, seen)
        return self.client.begin(lambda sdk: sdk.online_endpoints.begin_create_or_update(made), endpoint=seen.name)

    def delete_endpoint(self, endpoint: str) -> str:
        """Ask for an endpoint to be gone, with its deployments."""
        return self.client.begin(lambda sdk: sdk.online_endpoints.begin_delete(name=endpoint), endpoint=endpoint)

    # Deployments

    def put_deployment(
        self, endpoint: str, revision: Revision, made: Environment, code: Path | None, extra: Mapping[str, str]
    ) -> str:
        """Ask for the deployment of a revision."""
        entity = translate.deployment(endpoint, revision, made, code=code, extra=extra, defaults=self.defaults)
        return self.client.begin(
            lambda sdk: sdk.online_deployments.begin_create_or_update(entity), endpoint=endpoint, revision=revision.id
        )

    def delete_deployment(self, endpoint: str, revision: str) -> str:
        """Ask for a deployment to be gone."""
        return self.client.begin(
            lambda sdk: sdk.online_deployments.begin_delete(name=revision, endpoint_name=endpoint), endpoint=endpoint
        )

    def revision(self, deployment: Deployment) -> Revision:
        """Read what a deployment serves."""
        known = self._revisions.get(deployment.spec)
        if known is None:
            known = self._revisions[deployment.spec] = translate.revision(deployment)
        return known

    def revisions(self, seen: Seen) -> dict[str, Revision]:
        """Read what all deployments serve, by name."""
        return {each.name: self.revision(each) for each in seen.deployments}

    # Assets

    def put_model(self, revision: Revision) -> None:
        """Register a model with its bytes, or find it registered; ConflictError when another content bears its name."""
        name, version = revision.model.name, names.model_version(revision.model)
        found = none_if_missing(lambda: self.client.call(lambda sdk: sdk.models.get(name, version=version)))
        if found is None:
            made = translate.model(revision, self.defaults)
            self.client.upload(lambda sdk: sdk.models.create_or_update(made), model=f"{name}:{version}")
        elif (found.tags or {}).get(names.TAG_DIGEST) != revision.model.digest:
            message = f"there is a model {name!r}, version {version!r}, that modeldeploy did not register"
            raise ConflictError(message, hint="give the model another name or version")

    def put_environment(self, made: Environment) -> None:
        """Register an environment, or find it registered: its version says what it holds."""
        about = {"name": names.ENVIRONMENT, "version": made.version}
        if none_if_missing(lambda: self.client.call(lambda sdk: sdk.environments.get(**about))) is None:
            entity = translate.environment(made, self.defaults)
            self.client.call(lambda sdk: sdk.environments.create_or_update(entity), environment=made.version)

    # Why

    def reason(self, operation: str) -> Said | None:
        """Read why an operation failed, by the address that it was begun with; None when that cannot be read."""
        if not operation:
            return None
        try:
            document = self.client.ask("GET", operation)
        except ModelDeployError:
            # It would only hide that the operation failed.
            return None
        error = document.get("error") if isinstance(document, dict) else None
        return said({"error": error}) if error else None
