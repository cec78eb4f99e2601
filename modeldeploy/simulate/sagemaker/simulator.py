"""The simulator as its users hold it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.simulate.clock import Clock, ScaledClock
from modeldeploy.simulate.places import place
from modeldeploy.simulate.processes import Patience
from modeldeploy.simulate.sagemaker.faults import Faults
from modeldeploy.simulate.sagemaker.images import Images
from modeldeploy.simulate.sagemaker.running import Running
from modeldeploy.simulate.sagemaker.settings import MEBIBYTE, Settings
from modeldeploy.simulate.sagemaker.signature import Credentials
from modeldeploy.simulate.sagemaker.site import Site
from modeldeploy.simulate.sagemaker.world import Timings

_PREFIX = "md-sagemaker-"
_NEEDED = ("boto3", "moto", "werkzeug", "flask")


# Four minutes; the developer guide's text, in seconds of the service.
HEALTH_CHECK_S = 240.0


class Simulator:
    """SageMaker on a loopback port of this machine, with storage, logs, metrics and roles beside it.

    ``speed``: how many times as fast the service's time passes. ``images``: programs by image or repository, beside those known.
    ``health_check_s``: how long a container may take to come up, in seconds of this machine. ``processes``: how many processes stand for
    the instances of a variant at most. ``state_dir``: where containers have their directories; a temporary one by default.
    """

    def __init__(  # noqa: PLR0913 - settings, all by their names
        self,
        *,
        speed: float = 100.0,
        faults: Faults | None = None,
        state_dir: Path | None = None,
        region: str = "us-east-1",
        timings: Timings | None = None,
        images: Mapping[str, Sequence[str]] | None = None,
        clock: Clock | None = None,
        health_check_s: float = 60.0,
        invocation_timeout_s: float = 60.0,
        max_body_mb: float = 25.0,
        processes: int = 1,
    ) -> None:
        if speed <= 0:
            message = f"speed is {speed!r}"
            raise ConfigurationError(message, hint="give a number above 0; 1 is the service's own pace")
        self.speed = speed
        self._settings = Settings(
            site=Site(region, f"{secrets.randbelow(9 * 10**11) + 10**11}"),
            # Made anew each time; nothing outside of this simulator could be reached with them.
            credentials=Credentials(f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)),
            clock=clock or ScaledClock(speed),
            faults=faults or Faults(),
            timings=timings or Timings(),
            images=Images(images or {}),
            directory=state_dir or Path(tempfile.gettempdir()),
            patience=Patience(health_check_s, HEALTH_CHECK_S / speed),
            invocation_timeout_s=invocation_timeout_s,
            max_body=int(max_body_mb * MEBIBYTE),
            processes=processes,
        )
        self._running: Running | None = None
        self._stack = contextlib.ExitStack()

    @property
    def faults(self) -> Faults:
        """The switches of what goes wrong; they may be turned at any time."""
        return self._settings.faults

    @property
    def region(self) -> str:
        """The region that requests are to be signed for."""
        return self._settings.site.region

    @property
    def account(self) -> str:
        """The number of the account."""
        return self._settings.site.account

    @property
    def credentials(self) -> Credentials:
        """The access key and its secret."""
        return self._settings.credentials

    @property
    def role(self) -> str:
        """The ARN of the execution role, which exists."""
        return self._settings.site.role

    @property
    def bucket(self) -> str:
        """The name of the default bucket, which exists."""
        return self._settings.site.bucket

    @property
    def url(self) -> str:
        """The endpoint URL of every service."""
        if self._running is None:
            message = "the simulator is not running"
            raise ConfigurationError(message, hint="call start(), or use it in a with statement")
        return self._running.url

    @property
    def metric_period_s(self) -> float:
        """How often metrics reach CloudWatch, in seconds of this machine: once in a minute of the service."""
        return self._settings.timings.metrics / self.speed

    def session(self) -> Any:
        """Make a boto3 session with this account's credentials and region; its clients still need ``endpoint_url``."""
        import boto3

        key = self.credentials
        return boto3.Session(key.access_key, key.secret_key, region_name=self.region)

    def client(self, service: str, **options: Any) -> Any:
        """Make a boto3 client of a service in this cloud; ``options`` go to ``boto3.Session.client``."""
        return self.session().client(service, endpoint_url=self.url, **options)

    def start(self) -> Self:
        """Start to serve; a second call changes nothing."""
        if self._running is None:
            _check_installed()
            with contextlib.ExitStack() as stack:
                settings = attrs.evolve(self._settings, directory=place(self._settings.directory, _PREFIX, stack))
                self._running = Running(settings)
                stack.callback(self._running.close)
                # Whoever forgets to stop it leaves nothing either.
                atexit.register(self.stop)
                stack.callback(atexit.unregister, self.stop)
                self._stack = stack.pop_all()
        return self

    def stop(self) -> None:
        """End the server and every container; a second call changes nothing."""
        self._running = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the rehearsal of SageMaker needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[rehearsal]'")
