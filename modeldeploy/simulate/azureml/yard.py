"""Raises and ends the processes of online deployments, restarts those that die, and keeps what they print."""

from __future__ import annotations

import functools
import logging
import tempfile
import threading
from pathlib import Path

import attrs

from modeldeploy.simulate.azureml.durations import seconds
from modeldeploy.simulate.azureml.endpoint import Deployment, Endpoint
from modeldeploy.simulate.azureml.errors import ServiceError
from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.instances import Fleet, Log, Paths
from modeldeploy.simulate.azureml.machines import no_capacity
from modeldeploy.simulate.azureml.materials import Materials
from modeldeploy.simulate.azureml.programs import INFERENCE_SERVER, Programs
from modeldeploy.simulate.azureml.world import StoppedError, World
from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.processes import Child, Patience, Program, StartError

INFERENCE, STORAGE = "InferenceServer", "StorageInitializer"
_log = logging.getLogger(__name__)
_ROUND_S = 0.2
# However fast the service's time passes, nobody is asked more often than this.
_LEAST_PROBE_S = 1.0
# A process of this machine takes this machine's time, however fast the service's passes.
_LEAST_UNWELL_S = 2.0
_CRASHED = (
    "User container has crashed or terminated. Please see troubleshooting guide, available here: "
    "https://aka.ms/oe-tsg#error-resourcenotready"
)
_UNBUILT = "The image of the environment could not be built. Please see the build log."


@attrs.frozen
class Plan:
    """What each instance of a fleet is made of; a later change of the deployment does not change it."""

    endpoint: str
    deployment: str
    program: Program
    paths: Paths
    properties: Json


@attrs.define(eq=False)
class Yard:
    """All processes of online deployments."""

    world: World
    materials: Materials
    programs: Programs
    launcher: Launcher
    directory: Path
    patience_s: float
    processes: int
    """How many processes stand for the instances of a deployment at most."""
    _live: set[Child] = attrs.field(factory=set, init=False)
    _fleets: dict[int, Fleet] = attrs.field(factory=dict, init=False)
    _logs: dict[tuple[str, str, str], Log] = attrs.field(factory=dict, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def log(self, endpoint: str, deployment: str, kind: str) -> Log:
        """Give what the containers of a kind print."""
        with self._lock:
            return self._logs.setdefault((endpoint.lower(), deployment.lower(), kind.lower()), Log())

    def forget(self, endpoint: str, deployment: str) -> None:
        """Throw a deployment's logs away."""
        with self._lock:
            named = (endpoint.lower(), deployment.lower())
            self._logs = {key: log for key, log in self._logs.items() if key[:2] != named}

    def fleet(self, endpoint: Endpoint, deployment: Deployment) -> Fleet:
        """Start as many processes as stand for the instances, and wait until each is ready."""
        properties = deployment.asked["properties"]
        self._check_faults(properties)
        fleet = self._planned(endpoint, deployment, properties)
        try:
            for _number in range(max(1, min(deployment.count, self.processes))):
                fleet.instances.append(fleet.start())
            self._await(fleet)
        except StartError as error:
            self.end(fleet)
            raise ServiceError(400, "ResourceNotReady", _CRASHED) from error
        except BaseException:
            self.end(fleet)
            raise
        with self._lock:
            self._fleets[id(fleet)] = fleet
        return fleet

    def _planned(self, endpoint: Endpoint, deployment: Deployment, properties: Json) -> Fleet:
        program, paths = self._program(properties)
        plan = Plan(endpoint.name, deployment.name, program, paths, properties)
        settings, probe = properties["requestSettings"], properties["livenessProbe"]
        # The documented rule: twice what each instance works on.
        slots = 2 * int(settings["maxConcurrentRequestsPerInstance"]) * max(1, deployment.count)
        return Fleet(
            paths=paths,
            slots=threading.Semaphore(slots),
            timeout_s=seconds(settings["requestTimeout"]),
            start=functools.partial(self._start, plan),
            liveness_s=max(_LEAST_PROBE_S, seconds(probe["period"]) / self.world.speed),
            most_failures=int(probe["failureThreshold"]),
        )

    def _await(self, fleet: Fleet) -> None:
        unwell = max(_LEAST_UNWELL_S, fleet.most_failures * 10.0 / self.world.speed)
        for each in fleet.instances:
            each.wait(Patience(self.patience_s, unwell), self.world.stopping)

    def _check_faults(self, properties: Json) -> None:
        faults = self.world.faults
        if faults.image_build:
            raise ServiceError(400, "ImageBuildFailure", _UNBUILT)
        if faults.capacity:
            raise no_capacity(properties["instanceType"])
        if faults.not_ready:
            raise ServiceError(400, "ResourceNotReady", _CRASHED)

    def _program(self, properties: Json) -> tuple[Program, Paths]:
        environment = self.materials.environment(properties)
        routes = None if environment is None else environment.properties["inferenceConfig"]
        if environment is None or not routes:
            return INFERENCE_SERVER, Paths()
        image = environment.properties["image"] or ""
        program = self.programs.custom(image)
        if program is None:
            raise ServiceError(400, "BadArgument", f"The image {image} could not be pulled.")
        paths = [routes[name]["path"] for name in ("livenessRoute", "readinessRoute", "scoringRoute")]
        return program, Paths(*paths)

    def _start(self, plan: Plan) -> Child:
        directory = Path(tempfile.mkdtemp(prefix="i", dir=self.directory))
        printed, said = (self.log(plan.endpoint, plan.deployment, kind).write for kind in (INFERENCE, STORAGE))
        instance = Child(self.launcher, directory, printed, health=plan.paths.readiness)
        with self._lock:
            if self._closed:
                raise StoppedError
            self._live.add(instance)
        try:
            instance.start(plan.program, self.materials.bring(directory, plan.properties, said))
        except BaseException:
            self._end([instance])
            raise
        return instance

    def end(self, fleet: Fleet | None) -> None:
        """End the processes of a fleet."""
        if fleet is None:
            return
        with self._lock:
            self._fleets.pop(id(fleet), None)
            instances, fleet.instances = fleet.instances, []
        self._end(instances)

    def end_all(self, endpoint: Endpoint) -> None:
        """End the processes of an endpoint."""
        for deployment in list(endpoint.deployments.values()):
            self.end(deployment.fleet)
            self.forget(endpoint.name, deployment.name)

    def close(self) -> None:
        """End every process, and start no other."""
        with self._lock:
            self._closed = True
            live = list(self._live)
        self._end(live)

    def _end(self, instances: list[Child]) -> None:
        for each in instances:
            each.stop()
            with self._lock:
                self._live.discard(each)

    def keep(self) -> None:
        """Go round until the simulator stops: a container that ended, or that says too often that it is not alive, is started again."""
        while not self.world.stopping.wait(_ROUND_S):
            with self._lock:
                fleets = list(self._fleets.values())
            for fleet in fleets:
                for instance in list(fleet.instances):
                    if fleet.is_dead(instance):
                        self._restart(fleet, instance)

    def _restart(self, fleet: Fleet, old: Child) -> None:
        self._end([old])
        try:
            fresh = fleet.start()
        except (ServiceError, OSError):
            _log.exception("a container could not be started again")
            return
        with self._lock:
            kept = old in fleet.instances
            fleet.instances = [fresh if each is old else each for each in fleet.instances]
        if not kept:
            self._end([fresh])
