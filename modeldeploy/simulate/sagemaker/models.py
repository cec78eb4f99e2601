"""CreateModel, DescribeModel, DeleteModel, ListModels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.simulate.sagemaker import archives
from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.errors import invalid, not_simulated
from modeldeploy.simulate.sagemaker.images import Images
from modeldeploy.simulate.sagemaker.listing import listed
from modeldeploy.simulate.sagemaker.world import Json, Record, Shelf, World


@attrs.define(eq=False)
class Models:
    """The models of the account."""

    world: World
    cloud: Cloud
    images: Images
    shelf: Shelf[Record]

    def create(self, request: Json) -> Json:
        """Make a model of one container, whose image and data must be there."""
        container = self._container(request)
        if "ExecutionRoleArn" not in request:
            raise invalid("ExecutionRoleArn is required when a model is created for hosting or batch transform.")
        self.shelf.check_free(request["ModelName"])
        if self.images.program(container["Image"]) is None:
            raise invalid(f"Requested image {container['Image']} not found.")
        if not archives.is_there(self.cloud, container):
            found = archives.location(container)
            raise invalid(f"Could not find model data at {found[0] if found else ''}.")
        return {"ModelArn": self._add(request).arn}

    def _container(self, request: Json) -> Json:
        containers = request.get("Containers", [])
        if "PrimaryContainer" in request and containers:
            raise invalid("Both PrimaryContainer and Containers are given; only one of them is allowed.")
        container: Json = request.get("PrimaryContainer") or (containers[0] if containers else {})
        if len(containers) > 1:
            raise not_simulated("models of more than one container")
        if container.get("Mode") == "MultiModel":
            raise not_simulated("multi-model containers")
        if "ModelPackageName" in container or "InferenceSpecificationName" in container:
            raise not_simulated("models from model packages")
        if "Image" not in container:
            raise invalid("You must provide an Image or a ModelPackageName for the container.")
        if "ModelDataUrl" in container and "ModelDataSource" in container:
            raise invalid("Both ModelDataUrl and ModelDataSource are given; only one of them is allowed.")
        return container

    def _add(self, request: Json) -> Record:
        world, name = self.world, request["ModelName"]
        model = Record(name, self.shelf.arn(name), request, world.clock.now(), world.visible_at())
        with world.lock:
            self.shelf.add(model)
            world.tag(model.arn, request.get("Tags", []))
        return model

    def describe(self, request: Json) -> Json:
        """Tell what a model was created with."""
        model = self.shelf.get(request["ModelName"])
        given = {name: value for name, value in model.request.items() if name != "Tags"}
        if "PrimaryContainer" in given:
            given["PrimaryContainer"] = _described(given["PrimaryContainer"])
        if "Containers" in given:
            given["Containers"] = [_described(each) for each in given["Containers"]]
        return {"EnableNetworkIsolation": False, **given, "CreationTime": model.created, "ModelArn": model.arn}

    def delete(self, request: Json) -> Json:
        """Remove a model; one that an endpoint uses is not kept."""
        with self.world.lock:
            model = self.shelf.remove(request["ModelName"])
            self.world.tags.pop(model.arn, None)
        return {}

    def page(self, request: Json) -> Json:
        """List the models."""
        return listed(self.shelf.values(), request, "Models", self._summary)

    def _summary(self, model: Record) -> Json:
        return {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.created}


def container_of(model: Record) -> Json:
    """Give the one container of a model."""
    container: Json = model.request.get("PrimaryContainer") or model.request["Containers"][0]
    return container


def _described(container: Mapping[str, Any]) -> Json:
    return {"Mode": "SingleModel", "Environment": {}, **container}
