"""Endpoints, configurations, models and records as they are at the service: reading, and creating what may be there already."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.client import Client
from modeldeploy.backends.sagemaker.described import Config, Seen, Variant
from modeldeploy.backends.sagemaker.errors import AlreadyThereError, translated
from modeldeploy.backends.sagemaker.guard import alarm_name
from modeldeploy.backends.sagemaker.storage import Storage
from modeldeploy.backends.sagemaker.translate import Defaults
from modeldeploy.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import Revision

RECORD = "revision.json"
_SPEC = "modeldeploy-spec"
_FOREIGN = "delete it by the tool that made it, or give yours another name"


class Provider:
    """One account in one region.

    What is named by its content is remembered: an EndpointConfig of ours and the revision of a Model never change. Everything else is
    read each time.
    """

    def __init__(self, client: Client, defaults: Defaults) -> None:
        self.client = client
        self.defaults = defaults
        self._configs: dict[str, Config] = {}
        self._revisions: dict[str, Revision] = {}
        self._ours: dict[tuple[str, float], bool] = {}

    @functools.cached_property
    def bucket(self) -> str:
        """The bucket of the backend: the configured one, or the account's by the name that SageMaker's own tools give to it."""
        return self.defaults.bucket or f"sagemaker-{self.client.region}-{self.client.account()}"

    @property
    def storage(self) -> Storage:
        """The objects of the bucket."""
        s3 = self.client.service("s3")
        return Storage(s3, self.bucket, kms_key=self.defaults.kms_key or None, guard=lambda: translated(service="s3"))

    # Endpoints

    def seen(self, endpoint: str) -> Seen | None:
        """Describe an endpoint; None when there is none, or none with this name can be."""
        if not names.is_name(endpoint):
            return None
        try:
            return Seen.of(self.client.sagemaker("describe_endpoint", EndpointName=endpoint))
        except NotFoundError:
            return None

    def endpoints(self) -> Iterator[str]:
        """Name the endpoints that bear our tag."""
        for each in self.client.pages("sagemaker", "list_endpoints", "Endpoints", MaxResults=100):
            name, key = each["EndpointName"], (each["EndpointArn"], each["CreationTime"].timestamp())
            if key not in self._ours:
                self._ours[key] = self.tags(each["EndpointArn"]).get(names.TAG_ENDPOINT) == name
            if self._ours[key]:
                yield name

    def refuse_foreign(self, seen: Seen) -> None:
        """Refuse to touch an endpoint that does not bear our tag."""
        mine = self.tags(seen.arn).get(names.TAG_ENDPOINT) == seen.name
        # One that went while we looked has no tags any more.
        if not mine and self.seen(seen.name) is not None:
            message = f"there is an endpoint {seen.name!r} that modeldeploy did not make"
            raise ConflictError(message, hint=_FOREIGN)

    def tags(self, arn: str) -> dict[str, str]:
        """Read the tags of a resource; none when it is gone."""
        try:
            found = self.client.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn)
            return {each["Key"]: each["Value"] for each in found}
        except NotFoundError:
            return {}

    # Configurations

    def config(self, name: str) -> Config | None:
        """Read a configuration; None when it is gone."""
        known = self._configs.get(name)
        if known is not None:
            return known
        try:
            found = Config.of(self.client.sagemaker("describe_endpoint_config", EndpointConfigName=name))
        except NotFoundError:
            return None
        endpoint = name.rpartition("-")[0]
        if found.name(endpoint) == name:
            self._configs[name] = found
        return found

    def has_config(self, name: str) -> bool:
        """Look whether a configuration is there now."""
        self._configs.pop(name, None)
        return self.config(name) is not None

    def config_of(self, seen: Seen) -> Config:
        """Read the configuration that an endpoint has; ConflictError when it is not one of ours."""
        found = self.config(seen.config)
        if found is None:
            message = f"the configuration {seen.config!r} of endpoint {seen.name!r} was deleted while it is in use"
            raise ConflictError(message, hint="delete the endpoint and deploy it again")
        foreign = [each.name for each in found.variants if not _is_ours(seen.name, each)]
        if foreign:
            message = f"there is an endpoint {seen.name!r} with variants {foreign} that modeldeploy did not make"
            raise ConflictError(message, hint=_FOREIGN)
        return found

    def put_config(self, endpoint: str, config: Config) -> str:
        """Create a configuration, or find it created; ConflictError when something else bears its name."""
        request = config.request(endpoint, self.defaults.tags)
        name = str(request["EndpointConfigName"])
        try:
            self.client.sagemaker("create_endpoint_config", **request)
        except AlreadyThereError:
            wanted = {each["Key"]: each["Value"] for each in request["Tags"]}[names.TAG_SPEC]
            described = self.client.sagemaker("describe_endpoint_config", EndpointConfigName=name)
            if self.tags(described["EndpointConfigArn"]).get(names.TAG_SPEC) != wanted:
                raise
        return name

    def configs_of(self, endpoint: str) -> Iterator[tuple[str, float]]:
        """Name the configurations that were made for an endpoint, and say when."""
        listed = self.client.pages("sagemaker", "list_endpoint_configs", "EndpointConfigs", NameContains=endpoint)
        for each in list(listed):
            name = each["EndpointConfigName"]
            tagged = names.may_be_config(name, endpoint) and self.tags(each["EndpointConfigArn"])
            if tagged and tagged.get(names.TAG_ENDPOINT) == endpoint:
                yield name, each["CreationTime"].timestamp()

    def delete_config(self, name: str) -> None:
        """Delete a configuration; one that is gone already is fine. Never call this for one that an endpoint uses."""
        found = self.config(name)
        if found is not None and found.find(names.PRIMARY) is not None:
            # The alarm that watched it; CloudWatch does not mind one that is not there.
            self.client.call("cloudwatch", "delete_alarms", AlarmNames=[alarm_name(name)])
        try:
            self.client.sagemaker("delete_endpoint_config", EndpointConfigName=name)
        except NotFoundError:
            return

    # Models

    def model(self, name: str) -> Mapping[str, Any] | None:
        """Describe a Model; None when there is none."""
        try:
            return self.client.sagemaker("describe_model", ModelName=name)
        except NotFoundError:
            return None

    def put_model(self, request: Mapping[str, Any]) -> None:
        """Create a Model, or find it created; ConflictError when another content bears its name."""
        try:
            self.client.sagemaker("create_model", **request)
        except AlreadyThereError as error:
            found = self.model(request["ModelName"])
            if found is None:
                # Made a moment ago, by a call whose answer was lost, and not seen everywhere yet.
                message = f"model {request['ModelName']!r} exists and is not seen yet"
                raise UnavailableError(message) from error
            if not _same_container(found.get("PrimaryContainer", {}), request["PrimaryContainer"]):
                message = f"there is a model {request['ModelName']!r} with another image or other content"
                raise ConflictError(
                    message, hint="drop the revision first, or name the image in its options"
                ) from error

    def models_of(self, endpoint: str, revision: str | None = None) -> Iterator[str]:
        """Name the Models that were made for an endpoint, or for one revision of it."""
        for each in list(self.client.pages("sagemaker", "list_models", "Models", NameContains=f"{endpoint}-")):
            name = each["ModelName"]
            if not name.startswith(f"{endpoint}-") or (revision and not names.may_be_model(name, endpoint, revision)):
                continue
            environment = (self.model(name) or {}).get("PrimaryContainer", {}).get("Environment", {})
            mine = environment.get(names.ENV_ENDPOINT) == endpoint
            if mine and revision in {None, environment.get(names.ENV_REVISION)}:
                yield name

    def delete_model(self, name: str) -> None:
        """Delete a Model; one that is gone already is fine."""
        try:
            self.client.sagemaker("delete_model", ModelName=name)
        except NotFoundError:
            return

    # Records: what a revision is, beside its archive

    def put_record(self, endpoint: str, revision: Revision) -> str:
        """Write down what a revision is, and say where."""
        key = f"{names.place(endpoint, revision.id)}{RECORD}"
        text = json.dumps(to_json(revision), sort_keys=True, separators=(",", ":"))
        storage, mark = self.storage, {_SPEC: names.spec(revision)}
        found = storage.find(key)
        if found is None or found.metadata.get(_SPEC) != mark[_SPEC]:
            storage.put(key, text.encode(), kind="application/json", metadata=mark)
        return storage.url(key)

    def revision(self, variant: Variant) -> Revision:
        """Read what a variant serves."""
        known = self._revisions.get(variant.model)
        if known is None:
            known = self._revisions[variant.model] = self._read(variant)
        return known

    def _read(self, variant: Variant) -> Revision:
        described = self.model(variant.model)
        if described is None:
            message = f"model {variant.model!r} of variant {variant.name!r} was deleted while it is in use"
            raise ConflictError(message, hint="deploy the endpoint again under another name, then delete this one")
        environment = described.get("PrimaryContainer", {}).get("Environment", {})
        bucket, _, key = environment.get(names.ENV_RECORD, "").removeprefix("s3://").partition("/")
        document = json.loads(_at(self.storage, bucket, self.client).get(key))
        if names.digest(document) != environment.get(names.ENV_SPEC):
            message = f"the record of revision {variant.name!r} at {environment.get(names.ENV_RECORD)!r} was changed"
            raise IntegrityError(message, hint="deploy the model again under another endpoint name")
        return from_json(Revision, document)

    def revisions(self, config: Config) -> dict[str, Revision]:
        """Read what all variants serve, by name."""
        return {each.name: self.revision(each) for each in config.variants}

    def sweep(self, prefix: str) -> None:
        """Delete every object below a prefix of the bucket, and every upload to it that was not finished."""
        storage = self.storage
        try:
            storage.delete([each.key for each in storage.below(prefix)])
            begun = self.client.call("s3", "list_multipart_uploads", Bucket=storage.bucket, Prefix=prefix)
        except NotFoundError:
            # There is no such bucket, so there is nothing in it.
            return
        for each in begun.get("Uploads", ()):
            storage.abandon(each["Key"], each["UploadId"])


def _at(storage: Storage, bucket: str, client: Client) -> Storage:
    """Give the storage of the bucket that a record names: it may have been written with another setting."""
    if storage.bucket == bucket:
        return storage
    return Storage(client.service("s3"), bucket, guard=lambda: translated(service="s3"))


def _is_ours(endpoint: str, variant: Variant) -> bool:
    if variant.name == names.PRIMARY:
        return variant.model.startswith(f"{endpoint}-")
    return names.may_be_model(variant.model, endpoint, variant.name)


def _same_container(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    here, there = found.get("Environment", {}), wanted["Environment"]
    same = all(found.get(key) == wanted[key] for key in ("Image", "ModelDataUrl"))
    return same and here.get(names.ENV_SPEC) == there[names.ENV_SPEC]
