"""Raises and ends the processes of deployments, and keeps what they print."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import attrs

from modeldeploy.simulate.azureml.arm_ids import asset_of
from modeldeploy.simulate.azureml.assets import Assets
from modeldeploy.simulate.azureml.blobs import Blobs
from modeldeploy.simulate.azureml.durations import seconds
from modeldeploy.simulate.azureml.endpoint import Deployment, Endpoint
from modeldeploy.simulate.azureml.errors import ServiceError, bad_request
from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.instances import Fleet, Instance, Log, Paths, StartError
from modeldeploy.simulate.azureml.programs import INFERENCE_SERVER, Program, Programs
from modeldeploy.simulate.azureml.world import StoppedError, World
from modeldeploy.simulate.sagemaker.launcher import Launcher

_CRASHED = (
    "User container has crashed or terminated. Please see troubleshooting guide, available here: "
    "https://aka.ms/oe-tsg#error-resourcenotready"
)


@attrs.define(eq=False)
class Shelves:
    """Where deployments take what they are made of."""

    codes: Assets
    models: Assets
    environments: Assets
    blobs: Blobs


@attrs.define(eq=False)
class Yard:
    """All processes of the simulator that score."""

    world: World
    shelves: Shelves
    programs: Programs
    launcher: Launcher
    directory: Path
    patience_s: float
    processes: int
    _live: set[Instance] = attrs.field(factory=set)
    _logs: dict[tuple[str, str, str], Log] = attrs.field(factory=dict)
    _closed: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def check(self, asked: Json) -> None:
        """Raise the service's error for what can never be deployed."""
        properties = asked["properties"]
        if properties["environmentId"]:
            asset_of(properties["environmentId"], self.shelves.environments)
        if properties["model"]:
            asset_of(properties["model"], self.shelves.models)

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
        program, paths = self._program(properties)
        count = max(1, min(deployment.count, self.processes))
        instances: list[Instance] = []
        try:
            for _number in range(count):
                instances.append(self._start(endpoint, deployment, program))  # noqa: PERF401 - those that stand are ended when one fails
            for each in instances:
                each.wait(paths.readiness, self.patience_s, self.world.stopping)
        except StartError as error:
            self._end(instances)
            raise ServiceError(400, "ResourceNotReady", _CRASHED) from error
        settings = properties["requestSettings"]
        slots = 2 * int(settings["maxConcurrentRequestsPerInstance"]) * max(1, deployment.count)
        return Fleet(instances, paths, threading.Semaphore(slots), seconds(settings["requestTimeout"]))

    def end(self, fleet: Fleet | None) -> None:
        """End the processes of a fleet."""
        if fleet is not None:
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

    def _end(self, instances: list[Instance]) -> None:
        for each in instances:
            each.stop()
            with self._lock:
                self._live.discard(each)

    def _program(self, properties: Json) -> tuple[Program, Paths]:
        environment = properties["environmentId"]
        asked = asset_of(environment, self.shelves.environments).properties if environment else {}
        routes = asked.get("inferenceConfig")
        if not routes:
            return INFERENCE_SERVER, Paths()
        program = self.programs.custom(asked["image"] or "")
        if program is None:
            raise ServiceError(400, "BadArgument", f"The image {asked['image']} could not be pulled.")
        paths = [routes[name]["path"] for name in ("livenessRoute", "readinessRoute", "scoringRoute")]
        return program, Paths(*paths)

    def _start(self, endpoint: Endpoint, deployment: Deployment, program: Program) -> Instance:
        directory = Path(tempfile.mkdtemp(prefix="i", dir=self.directory))
        instance = Instance(self.launcher, directory, self.log(endpoint.name, deployment.name, "InferenceServer"))
        with self._lock:
            if self._closed:
                raise StoppedError
            self._live.add(instance)
        try:
            environment = self._materialise(directory, deployment.asked["properties"])
            instance.start(program, environment)
        except BaseException:
            self._end([instance])
            raise
        return instance

    def _materialise(self, directory: Path, properties: Json) -> dict[str, str]:
        """Bring model and code into a directory, and say in the environment where they are."""
        environment = dict(properties["environmentVariables"])
        if properties["model"]:
            model = asset_of(properties["model"], self.shelves.models)
            place = directory / "azureml-models" / model.name / model.version
            self._fetch(model.properties["modelUri"], place)
            environment["AZUREML_MODEL_DIR"] = str(place)
        code = properties["codeConfiguration"]
        if code:
            asset = asset_of(code["codeId"], self.shelves.codes)
            # The folder that was uploaded keeps its name, as it does below /var/azureml-app.
            self._fetch(asset.properties["codeUri"], directory / "app")
            environment["AML_APP_ROOT"] = str(directory / "app" / asset.properties["codeUri"].rpartition("/")[2])
            environment["AZUREML_ENTRY_SCRIPT"] = code["scoringScript"]
        return environment

    def _fetch(self, uri: str, into: Path) -> None:
        container, prefix = place_of(uri, self.world.site.container)
        if not self.shelves.blobs.fetch(container, prefix, into):
            raise bad_request(f"There is nothing at {uri}.")


def place_of(uri: str, default: str) -> tuple[str, str]:
    """Find container and name that a URI names: a datastore path, or a blob's URL."""
    if "/paths/" in uri:
        return default, uri.partition("/paths/")[2]
    path = uri.partition("://")[2].partition("?")[0]
    _account, container, *rest = path.split("/")[1:]
    return container, "/".join(rest)
