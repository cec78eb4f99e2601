"""Fleets: the instances of an endpoint's variants, as processes."""

from __future__ import annotations

import itertools
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.processes import Patience, Program, StartError
from modeldeploy.simulate.sagemaker import archives
from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.containers import Container
from modeldeploy.simulate.sagemaker.images import Images
from modeldeploy.simulate.sagemaker.logbook import Logbook
from modeldeploy.simulate.sagemaker.models import container_of
from modeldeploy.simulate.sagemaker.world import Json, Record, StoppedError, World

NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry using a different ML "
    "instance type or after some time."
)


class ProvisionError(Exception):
    """The fleet did not come up; the text is the FailureReason."""


@attrs.define(eq=False)
class Variant:
    """One variant of a fleet as it runs."""

    settings: Json
    """As the endpoint configuration has it."""
    model: Record
    weight: float
    desired_weight: float
    count: int
    desired_count: int
    containers: list[Container] = attrs.field(factory=list)
    stream: str = ""
    """The log stream of its latest container."""
    used: float = 0.0
    """When the last request came, for serverless variants."""
    growing: bool = False
    """Whether containers come up beside what callers ask for."""
    retired: bool = False
    """Whether it has been stopped for good."""
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    """Held by whoever changes its containers."""
    _turn: itertools.count[int] = attrs.field(factory=itertools.count)

    @classmethod
    def of(cls, settings: Json, model: Record) -> Variant:
        """Make one as the configuration says; a weight that is not given is 1."""
        weight, count = float(settings.get("InitialVariantWeight", 1.0)), int(settings.get("InitialInstanceCount", 1))
        return cls(settings, model, weight, weight, count, count)

    @property
    def name(self) -> str:
        """The variant's name."""
        return str(self.settings["VariantName"])

    @property
    def serverless(self) -> bool:
        """Whether it has no instances of its own."""
        return "ServerlessConfig" in self.settings

    def next(self) -> Container | None:
        """Give the container whose turn it is; None while there is none."""
        containers = self.containers
        return containers[next(self._turn) % len(containers)] if containers else None


@attrs.define(eq=False)
class Fleet:
    """All variants of one endpoint configuration."""

    config: Record
    variants: list[Variant]
    shadows: list[Variant] = attrs.field(factory=list)
    capture: Json | None = None
    """How data is captured."""

    @property
    def every(self) -> Iterable[Variant]:
        """Production and shadow variants."""
        return (*self.variants, *self.shadows)


@attrs.define(eq=False)
class Yard:
    """Starts and stops the processes of fleets and jobs."""

    world: World
    cloud: Cloud
    images: Images
    launcher: Launcher
    logbook: Logbook
    directory: Path
    patience: Patience
    processes: int
    """How many processes stand for the instances of a variant at most."""
    _live: set[Container] = attrs.field(factory=set, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def raise_fleet(self, fleet: Fleet, group: str, *, refused: Callable[[], None]) -> None:
        """Start every container of a fleet and wait until each is healthy; ProvisionError, with nothing left, otherwise."""
        try:
            refused()
            for variant in fleet.every:
                self.grow(variant, group)
        except ProvisionError:
            self.stop(fleet.every)
            raise

    def grow(self, variant: Variant, group: str) -> None:
        """Bring the processes of a variant to the number that stands for its instances."""
        wanted = min(max(variant.desired_count, 1), self.processes)
        with variant.lock:
            if variant.retired:
                return
            fresh = self._fresh(variant, group, wanted - len(variant.containers))
            containers = [*variant.containers, *fresh]
            variant.containers, surplus = containers[:wanted], containers[wanted:]
        for container in surplus:
            self.end(container)

    def _fresh(self, variant: Variant, group: str, count: int) -> list[Container]:
        fresh = [self._start(variant, group) for _number in range(count)]
        try:
            self._await(variant, fresh)
        except ProvisionError:
            for each in fresh:
                self.end(each)
            raise
        return fresh

    def regrow(self, variant: Variant, group: str, *, after_s: float = 0.0) -> None:
        """Begin to bring the processes of a variant to their number again; a try that fails leaves room for another."""
        with self.world.lock:
            if variant.growing:
                return
            variant.growing = True

        def grow() -> None:
            try:
                self.world.wait(after_s)
                self.grow(variant, group)
            except ProvisionError:
                return
            finally:
                variant.growing = False

        self.world.go(f"grow {variant.name}", grow)

    def stop(self, variants: Iterable[Variant]) -> None:
        """Stop some variants for good."""
        for variant in variants:
            variant.retired = True
            with variant.lock:
                containers, variant.containers = variant.containers, []
            for container in containers:
                self.end(container)

    def end_of(self, variant: Variant, containers: Sequence[Container]) -> None:
        """Stop some containers of a variant that goes on."""
        ended = list(containers)
        with variant.lock:
            variant.containers = [each for each in variant.containers if each not in ended]
        for container in ended:
            self.end(container)

    def end(self, container: Container) -> None:
        """Stop one container."""
        container.stop()
        with self._lock:
            self._live.discard(container)

    def close(self) -> None:
        """Stop every container there is, and start no other."""
        with self._lock:
            self._closed = True
            live = list(self._live)
        for container in live:
            self.end(container)

    def _start(self, variant: Variant, group: str) -> Container:
        variant.stream = f"{variant.name}/i-{uuid.uuid4().hex[:17]}"
        log = self.logbook.writer(group, variant.stream)
        try:
            return self.start(variant.model, log, {})
        except archives.DownloadError as error:
            text = (
                f'Failed to download model data for container "container_1" from URL: "{error.url}". Please ensure that there is an '
                "object located at the URL and that the role passed to CreateModel has permissions to download the object."
            )
            raise ProvisionError(text) from error
        except archives.ExtractError as error:
            text = (
                f'Failed to extract model data archive for container "container_1" from URL "{error.url}". Please ensure that the '
                "object located at the URL is a valid tar.gz archive."
            )
            raise ProvisionError(text) from error

    def start(self, model: Record, log: Callable[[str], None], environment: Mapping[str, str]) -> Container:
        """Start one container of a model; DownloadError or ExtractError when its data cannot be had."""
        settings = container_of(model)
        directory = Path(tempfile.mkdtemp(prefix="c", dir=self.directory))
        container = Container(self.launcher, directory, log)
        with self._lock:
            if self._closed:
                raise StoppedError
            self._live.add(container)
        try:
            archives.fetch(self.cloud, settings, directory / "model")
            program = self.images.program(settings["Image"]) or Program(())
            container.start(program, {**self._role(), **settings.get("Environment", {}), **environment})
        except BaseException:
            self.end(container)
            raise
        return container

    def _role(self) -> dict[str, str]:
        """Let the container be its execution role, in this cloud and no other."""
        key = self.cloud.credentials
        return {
            "AWS_ENDPOINT_URL": self.cloud.url,
            "AWS_REGION": self.world.site.region,
            "AWS_DEFAULT_REGION": self.world.site.region,
            "AWS_ACCESS_KEY_ID": key.access_key,
            "AWS_SECRET_ACCESS_KEY": key.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _await(self, variant: Variant, containers: Iterable[Container]) -> None:
        for container in containers:
            try:
                self.await_healthy(container, self.world.stopping)
            except StartError as error:
                raise ProvisionError(_reason(variant, exited=error.exited)) from error

    def await_healthy(self, container: Container, stop: threading.Event) -> None:
        """Wait until a container answers its health check; StartError when it does not."""
        container.wait(self.patience, stop)
        if self.world.faults.ping:
            raise StartError(exited=False)


def _reason(variant: Variant, *, exited: bool) -> str:
    if exited:
        image = container_of(variant.model)["Image"]
        return (
            f"CannotStartContainerError. Please ensure the model container for variant {variant.name} starts correctly when invoked "
            f"with 'docker run {image} serve'"
        )
    return (
        f"The primary container for production variant {variant.name} did not pass the ping health check. Please check CloudWatch logs "
        "for this endpoint."
    )
