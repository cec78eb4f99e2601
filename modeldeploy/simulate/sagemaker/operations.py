"""Which operation of the control plane is done by what."""

from __future__ import annotations

from collections.abc import Mapping

from modeldeploy.simulate.sagemaker.configs import Configs
from modeldeploy.simulate.sagemaker.control import Operation
from modeldeploy.simulate.sagemaker.deployments import Deployments
from modeldeploy.simulate.sagemaker.endpoints import Endpoints
from modeldeploy.simulate.sagemaker.models import Models
from modeldeploy.simulate.sagemaker.parts import Parts
from modeldeploy.simulate.sagemaker.tags import Tags
from modeldeploy.simulate.sagemaker.transforming import Transforming
from modeldeploy.simulate.sagemaker.transforms import Transforms


def operations(parts: Parts) -> Mapping[str, Operation]:
    """Name the operations that are simulated; all others of the service are refused."""
    return {**_models(parts), **_configs(parts), **_endpoints(parts), **_transforms(parts), **_tags(parts)}


def _models(parts: Parts) -> Mapping[str, Operation]:
    models = Models(parts.world, parts.cloud, parts.settings.images, parts.models)
    return {
        "CreateModel": models.create,
        "DescribeModel": models.describe,
        "DeleteModel": models.delete,
        "ListModels": models.page,
    }


def _configs(parts: Parts) -> Mapping[str, Operation]:
    configs = Configs(parts.world, parts.models, parts.configs)
    return {
        "CreateEndpointConfig": configs.create,
        "DescribeEndpointConfig": configs.describe,
        "DeleteEndpointConfig": configs.delete,
        "ListEndpointConfigs": configs.page,
    }


def _endpoints(parts: Parts) -> Mapping[str, Operation]:
    deployments = Deployments(parts.world, parts.yard, parts.alarms, parts.logbook, parts.endpoints)
    endpoints = Endpoints(parts.world, parts.models, parts.configs, parts.endpoints, parts.alarms, deployments)
    return {
        "CreateEndpoint": endpoints.create,
        "UpdateEndpoint": endpoints.update,
        "UpdateEndpointWeightsAndCapacities": endpoints.reweigh,
        "DescribeEndpoint": endpoints.describe,
        "DeleteEndpoint": endpoints.delete,
        "ListEndpoints": endpoints.page,
    }


def _transforms(parts: Parts) -> Mapping[str, Operation]:
    transforming = Transforming(parts.world, parts.cloud, parts.yard, parts.logbook)
    transforms = Transforms(parts.world, parts.cloud, parts.models, parts.jobs, transforming)
    return {
        "CreateTransformJob": transforms.create,
        "DescribeTransformJob": transforms.describe,
        "StopTransformJob": transforms.stop,
        "ListTransformJobs": transforms.page,
    }


def _tags(parts: Parts) -> Mapping[str, Operation]:
    tags = Tags(parts.world)
    return {"AddTags": tags.add, "DeleteTags": tags.delete, "ListTags": tags.page}
