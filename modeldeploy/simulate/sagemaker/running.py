"""The parts of a simulator put together: all that exists from its start to its stop."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import attrs
import orjson

from modeldeploy.simulate.sagemaker import app
from modeldeploy.simulate.sagemaker.alarms import Alarms
from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.configs import Configs
from modeldeploy.simulate.sagemaker.control import Control, Operation
from modeldeploy.simulate.sagemaker.deployments import Deployments
from modeldeploy.simulate.sagemaker.endpoint import Endpoint
from modeldeploy.simulate.sagemaker.endpoints import Endpoints
from modeldeploy.simulate.sagemaker.fleets import Yard
from modeldeploy.simulate.sagemaker.launcher import Launcher
from modeldeploy.simulate.sagemaker.logbook import Logbook
from modeldeploy.simulate.sagemaker.models import Models
from modeldeploy.simulate.sagemaker.runtime import Runtime
from modeldeploy.simulate.sagemaker.server import Server
from modeldeploy.simulate.sagemaker.settings import Settings
from modeldeploy.simulate.sagemaker.tags import Tags
from modeldeploy.simulate.sagemaker.world import Record, Shelf, World

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


@attrs.frozen(eq=False)
class Parts:
    """The parts that the operations are made of."""

    settings: Settings
    world: World
    cloud: Cloud
    logbook: Logbook
    yard: Yard
    models: Shelf[Record]
    configs: Shelf[Record]
    endpoints: Shelf[Endpoint]


class Running:
    """A server with everything behind it; ``close`` ends it all."""

    def __init__(self, settings: Settings) -> None:
        with contextlib.ExitStack() as stack:
            server = Server()
            stack.callback(server.close)
            launcher = Launcher()
            stack.callback(launcher.close)
            self.url = f"http://127.0.0.1:{server.port}"
            self._parts = _parts(settings, self.url, launcher)
            stack.callback(self._parts.cloud.close)
            stack.callback(self._end_fleets)
            stack.callback(self._parts.world.stop)
            server.start(_app(self._parts))
            _furnish(self._parts)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End what goes on, every container, and the server, in this order."""
        self._stack.close()

    def _end_fleets(self) -> None:
        for endpoint in list(self._parts.endpoints.items.values()):
            self._parts.yard.stop(endpoint.fleet.every)
            if endpoint.pending is not None:
                self._parts.yard.stop(endpoint.pending.fleet.every)


def _parts(settings: Settings, url: str, launcher: Launcher) -> Parts:
    site, clock = settings.site, settings.clock
    world = World(site, clock, settings.faults, settings.timings)
    cloud = Cloud(url, site, settings.credentials)
    logbook = Logbook(world, cloud)
    yard = Yard(
        world,
        cloud,
        settings.images,
        launcher,
        logbook,
        settings.directory,
        patience=settings.patience,
        processes=settings.processes,
    )
    models: Shelf[Record] = Shelf("model", "model", site, clock)
    configs: Shelf[Record] = Shelf("endpoint-config", "endpoint configuration", site, clock)
    endpoints: Shelf[Endpoint] = Shelf("endpoint", "endpoint", site, clock)
    return Parts(settings, world, cloud, logbook, yard, models, configs, endpoints)


def _app(parts: Parts) -> app.App:
    settings = parts.settings
    return app.App(
        Control(_operations(parts)),
        Runtime(parts.world, parts.endpoints, settings.invocation_timeout_s),
        settings.faults,
        settings.credentials,
        settings.site.account,
        app.others(),
        settings.max_body,
    )


def _operations(parts: Parts) -> Mapping[str, Operation]:
    models = Models(parts.world, parts.cloud, parts.settings.images, parts.models)
    configs = Configs(parts.world, parts.models, parts.configs)
    alarms = Alarms(parts.cloud)
    deployments = Deployments(parts.world, parts.yard, alarms, parts.endpoints)
    endpoints = Endpoints(parts.world, parts.models, parts.configs, parts.endpoints, alarms, deployments)
    tags = Tags(parts.world)
    return {
        "AddTags": tags.add,
        "DeleteTags": tags.delete,
        "ListTags": tags.page,
        "CreateModel": models.create,
        "DescribeModel": models.describe,
        "DeleteModel": models.delete,
        "ListModels": models.page,
        "CreateEndpointConfig": configs.create,
        "DescribeEndpointConfig": configs.describe,
        "DeleteEndpointConfig": configs.delete,
        "ListEndpointConfigs": configs.page,
        "CreateEndpoint": endpoints.create,
        "UpdateEndpoint": endpoints.update,
        "UpdateEndpointWeightsAndCapacities": endpoints.reweigh,
        "DescribeEndpoint": endpoints.describe,
        "DeleteEndpoint": endpoints.delete,
        "ListEndpoints": endpoints.page,
    }


def _furnish(parts: Parts) -> None:
    """Make what an account has before anybody does anything: the default bucket and the execution role."""
    site = parts.world.site
    place = {} if site.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": site.region}}
    parts.cloud.client("s3").create_bucket(Bucket=site.bucket, **place)
    parts.cloud.client("iam").create_role(
        RoleName=site.role.rpartition("/")[2],
        AssumeRolePolicyDocument=orjson.dumps(_TRUST).decode(),
        Description="What rehearsed models and jobs act as.",
    )
