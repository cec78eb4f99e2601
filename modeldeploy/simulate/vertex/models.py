"""The service of the model registry."""

from __future__ import annotations

from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.artifacts import Artifacts
from modeldeploy.simulate.vertex.checks import check_etag, check_model, masked
from modeldeploy.simulate.vertex.errors import invalid, precondition
from modeldeploy.simulate.vertex.listing import chosen, page
from modeldeploy.simulate.vertex.names import MODEL_ID, check_display_name, check_id, check_labels
from modeldeploy.simulate.vertex.operations import Operation, Operations
from modeldeploy.simulate.vertex.registry import DEFAULT, Entry, Registry
from modeldeploy.simulate.vertex.usage import Usage
from modeldeploy.simulate.vertex.world import World

_CHANGEABLE = ("display_name", "description", "version_description", "labels")
_FIELDS = ("display_name", "name", "model", "version_id")
_INPUTS = ("jsonl", "bigquery", "csv", "tf-record", "tf-record-gzip", "file-list")
_OUTPUTS = ("jsonl", "bigquery")


@attrs.define(eq=False)
class Models:
    """Answers ``ModelService``."""

    world: World
    registry: Registry
    operations: Operations
    artifacts: Artifacts
    usage: Usage

    def upload_model(self, request: Any) -> Any:
        """Begin to make a model, or a version of one that is there; its files are copied at the end."""
        self.world.site.check_parent(request.parent)
        model = proto.copy(request.model)
        check_model(model)
        with self.world.lock:
            model_id, entry = self._target(request)
        resource = f"{self.world.site.parent}/models/{model_id}"
        kind = proto.v1().UploadModelOperationMetadata

        def work(operation: Operation) -> Any:
            return self._upload(operation, model_id, entry, model)

        def after() -> None:
            if entry is None:
                self.registry.reserved.discard(model_id)

        return self.operations.start("UploadModel", resource, kind(), work, after=after)

    def _target(self, request: Any) -> tuple[str, Entry | None]:
        if request.parent_model:
            entry, _version = self.registry.find(request.parent_model)
            if request.model_id and request.model_id != entry.id:
                message = "model_id and parent_model name different models."
                raise invalid(message)
            return entry.id, entry
        model_id = request.model_id or self.world.new_id()
        if request.model_id:
            check_id(model_id, MODEL_ID, "model_id")
        self.registry.reserve(model_id)
        return model_id, None

    def _upload(self, operation: Operation, model_id: str, entry: Entry | None, model: Any) -> Any:
        operation.wait(self.world.timings.upload)
        with self.world.lock:
            operation.check()
            operation.final = True
            name = f"{self.world.site.parent}/models/{model_id}"
            entry = entry or Entry(name, model_id, self.world.now())
            number = entry.next()
            self.artifacts.keep(model.artifact_uri, model_id, number)
            self._complete(model, entry, number)
            entry.add(number, model)
            self.registry.entries[model_id] = entry
            operation.metadata.generic_metadata.update_time = self.world.now()
            return proto.v1().UploadModelResponse(model=name, model_version_id=number)

    def _complete(self, model: Any, entry: Entry, number: str) -> None:
        """Write what the service itself says about a version."""
        v1 = proto.v1()
        now = self.world.now()
        model.name, model.version_id = entry.name, number
        model.create_time, model.update_time = entry.created, now
        model.version_create_time = model.version_update_time = now
        model.etag = self.world.etag()
        model.supported_deployment_resources_types = [v1.Model.DeploymentResourcesType.DEDICATED_RESOURCES]
        model.supported_input_storage_formats, model.supported_output_storage_formats = _INPUTS, _OUTPUTS

    def get_model(self, request: Any) -> Any:
        """Tell a version of a model; the default one when none is named."""
        with self.world.lock:
            entry, asked = self.registry.find(request.name)
            return self._told(entry, entry.version(asked))

    def _told(self, entry: Entry, number: str) -> Any:
        model = entry.told(number)
        model.deployed_models = [
            proto.v1().DeployedModelRef(endpoint=endpoint, deployed_model_id=deployed)
            for endpoint, deployed in self.usage.of(entry.id, number)
        ]
        return model

    def list_models(self, request: Any) -> Any:
        """Tell the models, each by its default version, the latest first."""
        self.world.site.check_parent(request.parent)
        found, token = page(
            chosen(list(self.registry.defaults()), request.filter, _FIELDS), request.page_size, request.page_token
        )
        return proto.v1().ListModelsResponse(models=found, next_page_token=token)

    def list_model_versions(self, request: Any) -> Any:
        """Tell the versions of a model, the latest first."""
        with self.world.lock:
            entry, _asked = self.registry.find(request.name)
            told = [self._told(entry, number) for number in reversed(entry.versions)]
        found, token = page(chosen(told, request.filter, _FIELDS), request.page_size, request.page_token)
        return proto.v1().ListModelVersionsResponse(models=found, next_page_token=token)

    def update_model(self, request: Any) -> Any:
        """Change what people read about a version."""
        fields = masked(request.update_mask, _CHANGEABLE)
        with self.world.lock:
            entry, asked = self.registry.find(request.model.name)
            number = entry.version(asked)
            model = entry.versions[number]
            check_etag(request.model.etag, model.etag)
            check_labels(request.model.labels)
            check_display_name(request.model.display_name, needed="display_name" in fields)
            for field in fields:
                setattr(model, field, getattr(request.model, field))
            model.update_time = model.version_update_time = self.world.now()
            model.etag = self.world.etag()
            return self._told(entry, number)

    def merge_version_aliases(self, request: Any) -> Any:
        """Give aliases to a version and take others from it."""
        with self.world.lock:
            entry, asked = self.registry.find(request.name)
            if not asked:
                message = f"The name {request.name} must have a version id."
                raise invalid(message)
            if not request.version_aliases:
                message = "version_aliases is required."
                raise invalid(message)
            number = entry.version(asked)
            entry.merge(number, list(request.version_aliases))
            return self._told(entry, number)

    def delete_model(self, request: Any) -> Any:
        """Begin to delete a model with all of its versions; one that is deployed is kept."""
        with self.world.lock:
            entry, _asked = self.registry.find(request.name)
            self._check_unused(entry, "")

        def work(operation: Operation) -> Any:
            operation.wait(self.world.timings.delete)
            with self.world.lock:
                self._check_unused(entry, "")
                if self.registry.entries.get(entry.id) is entry:
                    del self.registry.entries[entry.id]
            self.artifacts.forget(entry.id, "")

        return self.operations.start("DeleteModel", entry.name, proto.v1().DeleteOperationMetadata(), work)

    def delete_model_version(self, request: Any) -> Any:
        """Begin to delete one version; the only one and the default one are kept."""
        with self.world.lock:
            entry, asked = self.registry.find(request.name)
            if not asked or asked == DEFAULT:
                message = f"The name {request.name} must have a version id."
                raise invalid(message)
            number = entry.version(asked)
            self._check_unused(entry, number)

        def work(operation: Operation) -> Any:
            operation.wait(self.world.timings.delete)
            with self.world.lock:
                self._check_unused(entry, number)
                entry.remove(entry.version(number))
            self.artifacts.forget(entry.id, number)

        return self.operations.start("DeleteModelVersion", entry.name, proto.v1().DeleteOperationMetadata(), work)

    def _check_unused(self, entry: Entry, number: str) -> None:
        used = self.usage.of(entry.id, number)
        if used:
            endpoint, deployed = used[0]
            message = f"Model {entry.name} is deployed on {endpoint} as {deployed}; undeploy it first."
            raise precondition(message)
