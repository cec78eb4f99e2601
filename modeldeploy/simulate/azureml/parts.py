"""The parts of a simulator, put together."""

from __future__ import annotations

import base64
import secrets
from typing import Self

import attrs

from modeldeploy.simulate.azureml import assets
from modeldeploy.simulate.azureml.assets import Assets
from modeldeploy.simulate.azureml.blobs import Blobs
from modeldeploy.simulate.azureml.deployments import Deployments
from modeldeploy.simulate.azureml.endpoints import Endpoints
from modeldeploy.simulate.azureml.frontdoor import FrontDoor
from modeldeploy.simulate.azureml.lro import Operations
from modeldeploy.simulate.azureml.memory import Memory
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.sas import Key
from modeldeploy.simulate.azureml.settings import Settings
from modeldeploy.simulate.azureml.storage import Storage
from modeldeploy.simulate.azureml.tokens import Tokens
from modeldeploy.simulate.azureml.workspace import Workspace
from modeldeploy.simulate.azureml.world import World
from modeldeploy.simulate.azureml.yard import Shelves, Yard
from modeldeploy.simulate.sagemaker.launcher import Launcher


@attrs.frozen(eq=False)
class Parts:
    """Everything that lasts as long as the simulator runs."""

    world: World
    tokens: Tokens
    operations: Operations
    storage: Storage
    workspace: Workspace
    shelves: Shelves
    yard: Yard
    endpoints: Endpoints
    deployments: Deployments
    front: FrontDoor

    @classmethod
    def make(cls, settings: Settings, url: str, launcher: Launcher) -> Self:
        """Put the parts together."""
        site = settings.site
        world = World(site, settings.clock, settings.faults, settings.timings, url, settings.speed)
        blobs = _blobs(settings, world)
        key = Key(site.account, base64.b64encode(secrets.token_bytes(64)).decode())
        tokens, operations, memory = Tokens(settings.clock, site), Operations(world), Memory(world)
        codes, models, environments = (
            Assets(world, each) for each in (assets.CODES, assets.MODELS, assets.ENVIRONMENTS)
        )
        shelves = Shelves(codes, models, environments, blobs)
        yard = _yard(settings, world, shelves, launcher)
        endpoints = Endpoints(world, operations, tokens, memory, ended=yard.end_all)
        workspace = Workspace(world, key, Born.now(world), lambda name: blobs.create(name, world.clock.now()))
        return cls(
            world, tokens, operations, Storage(world, blobs, key), workspace, shelves, yard, endpoints,
            Deployments(world, operations, endpoints, yard, memory), FrontDoor(world, endpoints, tokens),
        )  # fmt: skip


def _blobs(settings: Settings, world: World) -> Blobs:
    directory = settings.directory / "blobs"
    directory.mkdir()
    blobs = Blobs(directory)
    blobs.create(settings.site.container, world.clock.now())
    return blobs


def _yard(settings: Settings, world: World, shelves: Shelves, launcher: Launcher) -> Yard:
    directory = settings.directory / "instances"
    directory.mkdir()
    return Yard(world, shelves, settings.programs, launcher, directory, settings.patience_s, settings.processes)
