"""The parts that the operations of a simulator are made of, made in the order in which they need each other."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.sagemaker.alarms import Alarms
from modeldeploy.simulate.sagemaker.asking import Asking
from modeldeploy.simulate.sagemaker.asynchronous import Asynchronous
from modeldeploy.simulate.sagemaker.capture import Captures
from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.endpoint import Endpoint
from modeldeploy.simulate.sagemaker.fleets import Yard
from modeldeploy.simulate.sagemaker.logbook import Logbook
from modeldeploy.simulate.sagemaker.metrics import Store
from modeldeploy.simulate.sagemaker.settings import Settings
from modeldeploy.simulate.sagemaker.shadowing import Shadows
from modeldeploy.simulate.sagemaker.transform_job import TransformJob
from modeldeploy.simulate.sagemaker.world import Record, Shelf, World

# What is counted at the very end of a slot is counted when it can be read.
_COUNTING_S = 0.05


@attrs.frozen(eq=False)
class Parts:
    """Everything behind the server."""

    settings: Settings
    world: World
    cloud: Cloud
    logbook: Logbook
    yard: Yard
    store: Store
    alarms: Alarms
    captures: Captures
    asking: Asking
    shadows: Shadows
    asynchronous: Asynchronous
    models: Shelf[Record]
    configs: Shelf[Record]
    endpoints: Shelf[Endpoint]
    jobs: Shelf[TransformJob]

    @classmethod
    def make(cls, settings: Settings, url: str, launcher: Launcher) -> Parts:
        """Make them; nothing runs yet."""
        site, clock = settings.site, settings.clock
        world = World(site, clock, settings.faults, settings.timings)
        cloud = Cloud(url, site, settings.credentials)
        logbook = Logbook(world, cloud)
        begun, timings = clock.now(), settings.timings
        slot_s, late_s = clock.after(timings.metrics) - begun, clock.after(timings.late) - begun
        store = Store(slot_s, late_s + _COUNTING_S)
        yard = _yard(settings, world, cloud, launcher, logbook)
        asking = Asking(world, yard, store, settings.invocation_timeout_s)
        return cls(
            settings=settings,
            world=world,
            cloud=cloud,
            logbook=logbook,
            yard=yard,
            store=store,
            alarms=Alarms(cloud, clock, store),
            captures=Captures(cloud, clock),
            asking=asking,
            shadows=Shadows(asking),
            asynchronous=Asynchronous(asking, cloud),
            models=Shelf("model", "model", site, clock),
            configs=Shelf("endpoint-config", "endpoint configuration", site, clock),
            endpoints=Shelf("endpoint", "endpoint", site, clock),
            jobs=Shelf("transform-job", "transform job", site, clock),
        )


def _yard(settings: Settings, world: World, cloud: Cloud, launcher: Launcher, logbook: Logbook) -> Yard:
    return Yard(
        world,
        cloud,
        settings.images,
        launcher,
        logbook,
        settings.directory,
        patience=settings.patience,
        processes=settings.processes,
    )
