"""The simulator as its users hold it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import secrets
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.simulate.azureml import sdk
from modeldeploy.simulate.azureml.elsewhere import Account
from modeldeploy.simulate.azureml.faults import Faults
from modeldeploy.simulate.azureml.programs import Programs
from modeldeploy.simulate.azureml.running import Running
from modeldeploy.simulate.azureml.settings import Settings
from modeldeploy.simulate.azureml.world import Site, Timings
from modeldeploy.simulate.clock import Clock, ScaledClock
from modeldeploy.simulate.places import place

_NEEDED = ("azure.ai.ml", "werkzeug")


class Simulator:
    """Azure ML on a loopback port of this machine: Resource Manager, the storage account and the scoring hosts of one workspace.

    ``speed``: how many times as fast the service's time passes. ``images``: programs of custom containers by image or repository.
    ``patience_s``: how long a process may take to become ready, in seconds of this machine. ``processes``: how many processes stand for
    the instances of a deployment at most, ``batch_processes`` likewise for a batch job. ``storage``: an account of Azurite
    to use instead of the simulator's own store. ``state_dir``: where blobs and processes have their directories; a temporary one by default.
    """

    def __init__(  # noqa: PLR0913 - settings, all by their names
        self,
        *,
        speed: float = 100.0,
        faults: Faults | None = None,
        state_dir: Path | None = None,
        region: str = "westeurope",
        timings: Timings | None = None,
        images: Mapping[str, Sequence[str]] | None = None,
        clock: Clock | None = None,
        patience_s: float = 60.0,
        processes: int = 1,
        batch_processes: int = 2,
        storage: Account | None = None,
    ) -> None:
        if speed <= 0:
            message = f"speed is {speed!r}"
            raise ConfigurationError(message, hint="give a number above 0; 1 is the service's own pace")
        self._settings = Settings(
            site=_site(region, storage),
            clock=clock or ScaledClock(speed),
            speed=speed,
            faults=faults or Faults(),
            timings=timings or Timings(),
            programs=Programs(images or {}),
            directory=state_dir or Path(tempfile.gettempdir()),
            patience_s=patience_s,
            processes=processes,
            batch_processes=batch_processes,
            storage=storage,
        )
        self._running: Running | None = None
        self._stack = contextlib.ExitStack()

    @property
    def faults(self) -> Faults:
        """The switches of what goes wrong; they may be turned at any time."""
        return self._settings.faults

    @property
    def speed(self) -> float:
        """How many times as fast the service's time passes."""
        return self._settings.speed

    @property
    def subscription_id(self) -> str:
        """The subscription that everything belongs to."""
        return self._settings.site.subscription

    @property
    def resource_group(self) -> str:
        """The resource group of the workspace."""
        return self._settings.site.resource_group

    @property
    def workspace(self) -> str:
        """The name of the workspace."""
        return self._settings.site.workspace

    @property
    def region(self) -> str:
        """The region of the workspace."""
        return self._settings.site.region

    @property
    def metric_period_s(self) -> float:
        """How often metrics are told anew, in seconds of this machine: once in a minute of the service."""
        return self._settings.timings.metrics / self.speed

    @property
    def url(self) -> str:
        """The URL of Resource Manager."""
        return self._run.url

    @property
    def credential(self) -> Any:
        """What gives tokens that are good here and nowhere else, as an Azure credential does."""
        return self._run.credential

    def client_options(self) -> dict[str, Any]:
        """Give the options that point an ``azure.ai.ml.MLClient`` at this simulator; uploads of this process find it, too."""
        sdk.install(self._settings.site.account, self._run.parts.world.storage_url)
        return {
            "cloud": _cloud(self._settings.site),
            "cloud_metadata": dict(sdk.metadata(self.url)),
            "authentication_policy": sdk.policy(self._run.credential),
            "enable_telemetry": False,
            "show_progress": False,
        }

    def client(self, **options: Any) -> Any:
        """Make an ``azure.ai.ml.MLClient`` of this workspace; ``options`` go to it."""
        from azure.ai.ml import MLClient

        given = {**self.client_options(), **options}
        return MLClient(self.credential, self.subscription_id, self.resource_group, self.workspace, **given)

    def start(self) -> Self:
        """Start to serve; a second call changes nothing."""
        if self._running is None:
            _check_installed()
            with contextlib.ExitStack() as stack:
                settings = attrs.evolve(self._settings, directory=place(self._settings.directory, "md-azureml-", stack))
                self._running = Running(settings)
                stack.callback(self._running.close)
                stack.callback(sdk.remove, settings.site.account)
                stack.callback(sdk.leave, _cloud(settings.site))
                # Whoever forgets to stop it leaves nothing either.
                atexit.register(self.stop)
                stack.callback(atexit.unregister, self.stop)
                self._stack = stack.pop_all()
        return self

    def stop(self) -> None:
        """End the server and every process; a second call changes nothing."""
        self._running = None
        self._stack.close()

    @property
    def _run(self) -> Running:
        if self._running is None:
            message = "the simulator is not running"
            raise ConfigurationError(message, hint="call start(), or use it in a with statement")
        return self._running

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _cloud(site: Site) -> str:
    """Name the simulated cloud; the SDK keeps the first description of a name."""
    return f"rehearsal-{site.workspace_id}"


def _site(region: str, storage: Account | None) -> Site:
    mark = secrets.token_hex(4)
    return Site(
        subscription=str(uuid.uuid4()),
        tenant=str(uuid.uuid4()),
        resource_group="rehearsal",
        workspace="rehearsal",
        workspace_id=str(uuid.uuid4()),
        region=region,
        account=f"rehearsal{mark}" if storage is None else storage.name,
        container=f"azureml-blobstore-{mark}",
        artifacts=f"azureml-{mark}",
    )


def _check_installed() -> None:
    missing = [name for name in _NEEDED if not _found(name)]
    if missing:
        message = f"the rehearsal of Azure ML needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[azureml,rehearsal]'")


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
