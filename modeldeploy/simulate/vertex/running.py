"""A simulator from its start to its stop: the servers, what runs behind them, and the order in which all of it ends."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.server import Server
from modeldeploy.simulate.vertex.artifacts import Artifacts
from modeldeploy.simulate.vertex.batch_jobs import BatchJobs
from modeldeploy.simulate.vertex.batch_output import Names
from modeldeploy.simulate.vertex.batch_run import Runner
from modeldeploy.simulate.vertex.calls import Call
from modeldeploy.simulate.vertex.containers import Contract
from modeldeploy.simulate.vertex.deployments import Deployments
from modeldeploy.simulate.vertex.endpoints import Endpoints
from modeldeploy.simulate.vertex.front import Door, Front
from modeldeploy.simulate.vertex.logbook import Logbook
from modeldeploy.simulate.vertex.logs import Logs
from modeldeploy.simulate.vertex.methods import Method
from modeldeploy.simulate.vertex.metrics import Meters
from modeldeploy.simulate.vertex.models import Models
from modeldeploy.simulate.vertex.monitoring import Monitoring
from modeldeploy.simulate.vertex.objects import Objects
from modeldeploy.simulate.vertex.operations import Operations
from modeldeploy.simulate.vertex.prediction import Prediction
from modeldeploy.simulate.vertex.quotas import Quotas
from modeldeploy.simulate.vertex.registry import Registry
from modeldeploy.simulate.vertex.replicas import Replicas
from modeldeploy.simulate.vertex.settings import Settings
from modeldeploy.simulate.vertex.storage import Storage
from modeldeploy.simulate.vertex.tokens import Tokens
from modeldeploy.simulate.vertex.uploads import Uploads
from modeldeploy.simulate.vertex.usage import Usage
from modeldeploy.simulate.vertex.web import Web
from modeldeploy.simulate.vertex.world import World


class Running:
    """Both servers with everything behind them; ``close`` ends it all."""

    def __init__(self, settings: Settings) -> None:
        with contextlib.ExitStack() as stack:
            self.world = World(settings.site, settings.clock, settings.speed, settings.faults, settings.timings)
            self._quotas = Quotas(self.world)
            self.tokens = Tokens(needed=settings.certificate is not None)
            self.web_tokens = Tokens()
            self.door = Door(self.world, self._quotas, self.tokens)
            self._server = Server()
            stack.callback(self._server.close)
            self.url = f"http://127.0.0.1:{self._server.port}"
            self._front = Front(self.door, settings.certificate)
            stack.callback(self._front.close)
            self.address = self._front.address
            self._launcher = Launcher()
            stack.callback(self._launcher.close)
            self.logbook, self.meters = Logbook(settings.clock), Meters(settings.timings.metrics / settings.speed)
            self.objects = Objects(_directory(settings, "objects"))
            self._build(settings)
            stack.callback(self._end)
            self._server.start(self._web(settings))
            self._front.start(self._answers)
            self.world.go("keeper", self.replicas.keep)
            self._stack = stack.pop_all()

    def _build(self, settings: Settings) -> None:
        world, artifacts = self.world, Artifacts(self.world, self.objects)
        contract = Contract(world, settings.images, self.url, artifacts.uri)
        self.replicas = Replicas(
            world,
            contract,
            self._launcher,
            self.logbook,
            _directory(settings, "processes"),
            settings.patience_s,
            settings.processes,
        )
        self.operations = Operations(world)
        registry, usage = Registry(world.site, world.lock), Usage(world.lock)
        endpoints = Endpoints(world, self.operations)
        names = Names(documented=settings.batch_files == "documented")
        runner = Runner(world, self.objects, self.replicas, names, settings.batch_processes)
        self.jobs = BatchJobs(world, self.operations, registry, runner.run)
        self._services: dict[str, list[object]] = {
            "ModelService": [Models(world, registry, self.operations, artifacts, usage)],
            "EndpointService": [
                endpoints,
                Deployments(world, self.operations, endpoints, registry, self.replicas, self._quotas, usage),
            ],
            "PredictionService": [Prediction(world, endpoints, self.meters, self._quotas)],
            "JobService": [self.jobs],
            "Operations": [self.operations],
        }

    def _web(self, settings: Settings) -> Web:
        storage = Storage(self.world, self.objects, Uploads(self.world, self.objects), self.url)
        monitoring = Monitoring(settings.site, self.meters, settings.clock)
        return Web(self.world, storage, Logs(settings.site, self.logbook), monitoring, self.web_tokens)

    def _answers(self, method: Method) -> Callable[..., Any] | None:
        """Find what answers a method."""
        for service in self._services.get(method.service, []):
            found = getattr(service, method.handler, None)
            if found is not None:
                return found if "call" in inspect.signature(found).parameters else functools.partial(_plain, found)
        return None

    def close(self) -> None:
        """End what goes on, every process, and the servers, in this order."""
        self._stack.close()

    def _end(self) -> None:
        self.world.stopping.set()
        self.operations.stop()
        self.jobs.stop()
        # The processes before the threads: whoever waits for their answers is free then.
        self.replicas.close()
        self.world.stop()


def _plain(found: Callable[[Any], Any], request: Any, _call: Call) -> Any:
    return found(request)


def _directory(settings: Settings, name: str) -> Path:
    made = settings.directory / name
    made.mkdir(parents=True, exist_ok=True)
    return made
