"""The simulator as its users hold it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import secrets
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.simulate.clock import Clock, ScaledClock
from modeldeploy.simulate.places import place
from modeldeploy.simulate.vertex.faults import Faults
from modeldeploy.simulate.vertex.images import Images
from modeldeploy.simulate.vertex.names import Site
from modeldeploy.simulate.vertex.running import Running
from modeldeploy.simulate.vertex.settings import Settings
from modeldeploy.simulate.vertex.tls import certificate
from modeldeploy.simulate.vertex.world import Timings

_NEEDED = ("google.cloud.aiplatform_v1", "google.cloud.storage", "grpc", "werkzeug")
_FILES = ("practised", "documented")


class Simulator:
    """Vertex AI on loopback ports of this machine: the gRPC services of one project and region, and Cloud Storage beside them.

    ``home``: where objects and processes have their directories; a temporary one by default. ``speed``: how many times as fast the
    service's time passes. ``images``: programs of containers by image or repository; ``{command}`` in one stands for what the container is told to start,
    ``{port}`` for ``AIP_HTTP_PORT``. ``patience_s``: how long a process may take to
    become well, in seconds of this machine. ``processes``: how many processes stand for the replicas of a deployed model at most,
    ``batch_processes`` likewise for a batch prediction job. ``batch_files``: how its output files are called, ``practised`` or ``documented``.
    ``tls``: whether the gRPC services listen over TLS, with a certificate of their own, and want a bearer token with each request.
    """

    def __init__(  # noqa: PLR0913 - settings, all but the first by their names
        self,
        home: Path | None = None,
        *,
        speed: float = 100.0,
        project: str = "rehearsal",
        location: str = "europe-west4",
        faults: Faults | None = None,
        timings: Timings | None = None,
        images: Mapping[str, Sequence[str]] | None = None,
        clock: Clock | None = None,
        patience_s: float = 60.0,
        processes: int = 1,
        batch_processes: int = 2,
        batch_files: str = "practised",
        tls: bool = False,
    ) -> None:
        if speed <= 0:
            raise ConfigurationError(f"speed is {speed!r}", hint="give a number above 0; 1 is the service's own pace")
        if batch_files not in _FILES:
            raise ConfigurationError(f"batch_files is {batch_files!r}", hint=f"give one of {', '.join(_FILES)}")
        self._settings = Settings(
            # No project has a number that begins with 0.
            site=Site(project, str(secrets.randbelow(9 * 10**11) + 10**11), location),
            clock=clock or ScaledClock(speed),
            speed=speed,
            faults=faults or Faults(),
            timings=timings or Timings(),
            images=Images(images or {}),
            directory=home or Path(tempfile.gettempdir()),
            patience_s=patience_s,
            processes=processes,
            batch_processes=batch_processes,
            certificate=certificate() if tls else None,
            batch_files=batch_files,
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
    def project(self) -> str:
        """The id of the project."""
        return self._settings.site.project

    @property
    def project_number(self) -> str:
        """The number of the project, with which the service writes the names of resources."""
        return self._settings.site.number

    @property
    def location(self) -> str:
        """The region."""
        return self._settings.site.location

    @property
    def metric_period_s(self) -> float:
        """How often metrics are told anew, in seconds of this machine: once in a minute of the service."""
        return self._settings.timings.metrics / self.speed

    @property
    def address(self) -> str:
        """Where the gRPC services listen: ``127.0.0.1:PORT`` in plain text, ``localhost:PORT`` over TLS."""
        return self._run.address

    @property
    def certificate(self) -> bytes:
        """The certificate to trust, in PEM; empty without TLS."""
        return b"" if self._settings.certificate is None else self._settings.certificate.pem

    @property
    def storage_url(self) -> str:
        """The URL of Cloud Storage, and of Cloud Logging and Cloud Monitoring beside it."""
        return self._run.url

    @property
    def calls(self) -> Counter[str]:
        """How often each method was asked so far."""
        return Counter(self._run.door.seen)

    @property
    def authorized(self) -> int:
        """How many requests came with a bearer token."""
        return self._run.tokens.seen + self._run.web_tokens.seen

    def transport(self, service: str, credentials: Any = None) -> Any:
        """Make the transport of a service, such as ``ModelService``; ``transport.close()`` ends its channel.

        ``credentials`` are sent over TLS only.
        """
        import grpc
        from google.cloud import aiplatform_v1

        kind = getattr(aiplatform_v1, f"{service}Client").get_transport_class("grpc")
        if self.certificate:
            trust = grpc.ssl_channel_credentials(self.certificate)
            return kind(host=self.address, credentials=credentials, ssl_channel_credentials=trust)
        # A proxy of the environment would be asked for loopback addresses, too.
        return kind(channel=grpc.insecure_channel(self.address, options=[("grpc.enable_http_proxy", 0)]))

    def storage_client(self) -> Any:
        """Make a ``google.cloud.storage.Client`` of this simulator."""
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud import storage

        credentials = AnonymousCredentials()
        session = AuthorizedSession(credentials)
        # Likewise about proxies.
        session.trust_env = False
        return storage.Client(
            self.project, credentials, _http=session, client_options={"api_endpoint": self.storage_url}
        )

    def start(self) -> Self:
        """Start to serve; a second call changes nothing."""
        if self._running is None:
            _check_installed()
            with contextlib.ExitStack() as stack:
                settings = attrs.evolve(self._settings, directory=place(self._settings.directory, "md-vertex-", stack))
                self._running = Running(settings)
                stack.callback(self._running.close)
                # Whoever forgets to stop it leaves nothing either.
                atexit.register(self.stop)
                stack.callback(atexit.unregister, self.stop)
                self._stack = stack.pop_all()
        return self

    def stop(self) -> None:
        """End the servers and every process; a second call changes nothing."""
        self._running = None
        self._stack.close()

    def close(self) -> None:
        """End the servers and every process."""
        self.stop()

    @property
    def _run(self) -> Running:
        if self._running is None:
            raise ConfigurationError("the simulator is not running", hint="call start(), or use it in a with statement")
        return self._running

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_installed() -> None:
    missing = [name for name in _NEEDED if not _found(name)]
    if missing:
        message = f"the rehearsal of Vertex AI needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[vertex,rehearsal]'")


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
