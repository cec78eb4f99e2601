"""The parts of a simulator, put together."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Self

import attrs

from modeldeploy.simulate.azureml import assets
from modeldeploy.simulate.azureml.asking import Asking
from modeldeploy.simulate.azureml.assets import Assets
from modeldeploy.simulate.azureml.autoscale import Autoscale
from modeldeploy.simulate.azureml.batch_endpoints import BatchEndpoints
from modeldeploy.simulate.azureml.batch_jobs import BatchJobs
from modeldeploy.simulate.azureml.batch_run import Runner
from modeldeploy.simulate.azureml.blobs import Blobs, Store
from modeldeploy.simulate.azureml.deployments import Deployments
from modeldeploy.simulate.azureml.elsewhere import Account, Elsewhere
from modeldeploy.simulate.azureml.endpoint import Endpoint
from modeldeploy.simulate.azureml.endpoints import Endpoints
from modeldeploy.simulate.azureml.frontdoor import FrontDoor
from modeldeploy.simulate.azureml.lro import Operations
from modeldeploy.simulate.azureml.materials import Materials
from modeldeploy.simulate.azureml.memory import Memory
from modeldeploy.simulate.azureml.metrics import Meters
from modeldeploy.simulate.azureml.mirroring import Mirroring
from modeldeploy.simulate.azureml.monitor import Monitor
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.sas import Key
from modeldeploy.simulate.azureml.settings import Settings
from modeldeploy.simulate.azureml.storage import Storage
from modeldeploy.simulate.azureml.tokens import Tokens
from modeldeploy.simulate.azureml.workspace import Workspace
from modeldeploy.simulate.azureml.world import World
from modeldeploy.simulate.azureml.yard import Yard
from modeldeploy.simulate.launcher import Launcher


@attrs.frozen(eq=False, kw_only=True)
class Parts:
    """Everything that lasts as long as the simulator runs."""

    world: World
    tokens: Tokens
    operations: Operations
    storage: Storage
    workspace: Workspace
    materials: Materials
    yard: Yard
    endpoints: Endpoints
    deployments: Deployments
    front: FrontDoor

    mirroring: Mirroring
    monitor: Monitor
    autoscale: Autoscale
    batch: BatchEndpoints
    jobs: BatchJobs

    @classmethod
    def make(cls, settings: Settings, url: str, launcher: Launcher) -> Self:
        """Put the parts together."""
        site = settings.site
        account = settings.storage or Account(f"{url}/{site.account}", site.account, _new_key())
        world = World(site, settings.clock, settings.faults, settings.timings, url, account.url, settings.speed)
        own = _blobs(settings)
        blobs: Store = own if settings.storage is None else Elsewhere(account)
        for name in (site.container, site.artifacts):
            blobs.create(name, world.clock.now())
        key = Key(account.name, account.key)
        tokens, operations, memory = Tokens(settings.clock, site), Operations(world), Memory(world)
        materials = _materials(world, blobs)
        yard = _yard(settings, world, materials, launcher)
        meters = Meters(settings.timings.metrics / settings.speed)
        endpoints = Endpoints(world, operations, tokens, memory, ended=_ended(yard, meters))
        asking = Asking(world, meters)
        mirroring = Mirroring(asking)
        deployments = Deployments(world, operations, endpoints, yard, memory)
        batch = BatchEndpoints(world, operations, materials, endpoints)
        endpoints.taken = lambda name: name.lower() in batch.items
        jobs = BatchJobs(world, batch, _runner(settings, world, materials, launcher).run)
        return cls(
            world=world,
            tokens=tokens,
            operations=operations,
            storage=Storage(world, own, key),
            workspace=Workspace(world, key, Born.now(world), lambda name: blobs.create(name, world.clock.now())),
            materials=materials,
            yard=yard,
            endpoints=endpoints,
            deployments=deployments,
            front=FrontDoor(world, endpoints, tokens, asking, mirroring, jobs),
            mirroring=mirroring,
            monitor=Monitor(world, endpoints, meters),
            autoscale=Autoscale(world, deployments.exists),
            batch=batch,
            jobs=jobs,
        )


def _materials(world: World, blobs: Store) -> Materials:
    kinds = (assets.CODES, assets.MODELS, assets.ENVIRONMENTS)
    codes, models, environments = (Assets(world, each) for each in kinds)
    return Materials(codes, models, environments, blobs, world.site.container)


def _ended(yard: Yard, meters: Meters) -> Callable[[Endpoint], None]:
    def ended(endpoint: Endpoint) -> None:
        yard.end_all(endpoint)
        meters.forget(endpoint.name)

    return ended


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _blobs(settings: Settings) -> Blobs:
    directory = settings.directory / "blobs"
    directory.mkdir()
    return Blobs(directory)


def _yard(settings: Settings, world: World, materials: Materials, launcher: Launcher) -> Yard:
    directory = settings.directory / "instances"
    directory.mkdir()
    return Yard(world, materials, settings.programs, launcher, directory, settings.patience_s, settings.processes)


def _runner(settings: Settings, world: World, materials: Materials, launcher: Launcher) -> Runner:
    directory = settings.directory / "jobs"
    directory.mkdir()
    return Runner(world, materials, launcher, directory, settings.patience_s, settings.batch_processes)
