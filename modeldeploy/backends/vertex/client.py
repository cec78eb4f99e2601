"""The few calls of google-cloud-aiplatform that are used; the only place that makes clients, and where credentials are looked for.

The generated clients over gRPC, not the package's high-level classes, which round traffic so that an idle revision gets some, drop an empty
split, give up on operations that go on, and wait for Resource Manager (google-cloud-aiplatform 2.7.0; each by a test that shows what is
done here instead). What has to be known about the generated clients, once:

* They have no time-out and no retry of their own: every call here has a time-out, and the engine repeats what may be repeated.
* A channel that a forked process inherits may hang, so each process makes its own.
* Without credentials the library asks a metadata server for nine seconds; where there can be none, it is not asked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from modeldeploy.backends.vertex.errors import LOGIN, translated
from modeldeploy.backends.vertex.settings import refuse_incomplete
from modeldeploy.errors import CredentialsError, MissingDependencyError, NotFoundError

T = TypeVar("T")
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TIMEOUT_S = 60.0
"""For every call of the control plane."""
_KINDS = {
    "model": "ModelServiceClient",
    "endpoint": "EndpointServiceClient",
    "prediction": "PredictionServiceClient",
    "job": "JobServiceClient",
}
_WRITES = ("create_", "update_", "delete_", "upload_", "deploy_", "undeploy_", "mutate_", "merge_", "cancel_")
_GOOGLE_MACHINES = (
    "K_SERVICE",
    "CLOUD_RUN_JOB",
    "GAE_ENV",
    "KUBERNETES_SERVICE_HOST",
    "GCE_METADATA_HOST",
    "CLOUD_ML_PROJECT_ID",
)
"""Variables that say that a metadata server may be there."""
_PRODUCT = Path("/sys/class/dmi/id/product_name")


@attrs.frozen
class Access:
    """Which project and region, who asks, and by which ways; the ways are given for a rehearsal alone."""

    project: str = ""
    location: str = ""
    bucket: str = ""
    credentials: Any = None
    transport_factory: Callable[[str], Any] | None = None
    """Makes the transport of a service (``model``, ``endpoint``, ``prediction``, ``job``); left out, it is gRPC to the region's address."""
    rest_url: str = ""
    """Where Cloud Storage, Cloud Logging and Cloud Monitoring are, in place of Google's own addresses."""

    @property
    def parent(self) -> str:
        """What the names of all resources begin with."""
        return f"projects/{self.project}/locations/{self.location}"


class Client:
    """Makes the generated clients when they are first needed, for each process anew; safe to use from several threads."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.RLock()
        self._made: dict[tuple[int, str], Any] = {}
        self.writes = 0
        """Requests so far that changed something at the provider, each as often as it was sent and not refused."""

    @functools.cached_property
    def credentials(self) -> Any:
        """Who asks: what was given, or what Google's own tools would find."""
        if self.access.credentials is not None:
            return self.access.credentials
        return find_credentials()

    def service(self, kind: str, *, host: str = "") -> Any:
        """Give the client of a service; ``host`` is the address of a dedicated endpoint."""
        where = {"project": self.access.project, "location": self.access.location}
        refuse_incomplete(where, "project", "location")
        return self.made(f"{kind} {host}", lambda: self._make(kind, host))

    def made(self, name: str, make: Callable[[], Any]) -> Any:
        """Give what was made under a name in this process, or make it."""
        with self._lock:
            key = (os.getpid(), name)
            if key not in self._made:
                # What a parent process made is left alone: closing a channel here would break it there.
                self._made = {each: made for each, made in self._made.items() if each[0] == key[0]}
                self._made[key] = make()
            return self._made[key]

    def _make(self, kind: str, host: str) -> Any:
        cls = getattr(_generated(), _KINDS[kind])
        with translated():
            if self.access.transport_factory is not None:
                return cls(transport=self.access.transport_factory(kind))
            address = host or f"{self.access.location}-aiplatform.googleapis.com"
            return cls(transport=cls.get_transport_class("grpc")(host=address, credentials=self.credentials))

    def call(self, kind: str, method: str, request: Any, *, timeout: float = TIMEOUT_S, **about: str) -> Any:
        """Make one call with a time-out; only errors of this library leave it."""
        made = getattr(self.service(kind), method)
        with translated(**about):
            answer = made(request=request, timeout=timeout, retry=None)
        if method.startswith(_WRITES):
            self.count()
        return answer

    def count(self) -> None:
        """Count a write."""
        with self._lock:
            self.writes += 1

    def every(self, kind: str, method: str, request: Any) -> list[Any]:
        """Read all pages of a listing."""
        made = getattr(self.service(kind), method)
        with translated():
            return list(made(request=request, timeout=TIMEOUT_S, retry=None))

    # Long-running operations: begun by ``begin``, looked at by name from any process

    def begin(self, kind: str, method: str, request: Any, **about: str) -> str:
        """Ask for a long-running operation, and give the name that tells of it."""
        answer = self.call(kind, method, request, timeout=TIMEOUT_S, **about)
        return str(answer.operation.name)

    def operation(self, name: str) -> Any:
        """Look at an operation: ``google.longrunning.Operation``; None when it is gone."""
        return none_if_missing(lambda: self.call("endpoint", "get_operation", {"name": name}))

    def under_way(self, resource: str) -> list[Any]:
        """Give the operations of a resource that have not ended."""
        asked = {"name": resource, "filter": "done=false"}
        found = none_if_missing(lambda: self.call("endpoint", "list_operations", asked))
        return [each for each in found.operations if not each.done] if found is not None else []

    def stop(self, name: str) -> None:
        """Ask an operation to stop; one that has ended is fine."""
        none_if_missing(lambda: self.call("endpoint", "cancel_operation", {"name": name}))

    # What has no generated client in this package: Cloud Logging and Cloud Monitoring

    @property
    def session(self) -> Any:
        """Give a session of requests that bears the credentials; for a rehearsal one that bears none and uses no proxy."""
        return self.made("session", self._session)

    def _session(self) -> Any:
        if self.access.rest_url:
            import requests

            made = requests.Session()
            made.trust_env = False
            return made
        from google.auth.transport.requests import AuthorizedSession

        return AuthorizedSession(self.credentials)

    def ask(
        self, method: str, service: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """Send one request to a REST service (``logging``, ``monitoring``), and give the answer's document."""
        from google.api_core.exceptions import from_http_response

        base = self.access.rest_url or f"https://{service}.googleapis.com"
        with translated():
            answer = self.session.request(method, f"{base}{path}", params=query, json=body, timeout=TIMEOUT_S)
            if not answer.ok:
                raise from_http_response(answer)
            return answer.json()

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            made, self._made = self._made, {}
        for (process, _name), each in made.items():
            if process == os.getpid():
                (each.close if hasattr(each, "close") else each.transport.close)()


def find_credentials() -> Any:
    """Find credentials as Google's own tools do, but at once where there are none: no metadata server is asked that cannot be there.

    CredentialsError says the command that makes them.
    """
    with installed("google-auth"):
        import google.auth
        from google.auth import _cloud_sdk
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or _cloud_sdk.get_application_default_credentials_path()
    if not (Path(named).is_file() or on_google()):
        message = f"there are no credentials for Google Cloud on this machine: {named!r} is not there"
        raise CredentialsError(message, hint=LOGIN)
    with translated():
        found, _project = google.auth.default(scopes=SCOPES)
    return found


def on_google() -> bool:
    """Whether this may be a machine of Google's, which has a metadata server."""
    if any(os.environ.get(name) for name in _GOOGLE_MACHINES):
        return True
    with contextlib.suppress(OSError):
        return _PRODUCT.read_text(encoding="ascii", errors="replace").startswith("Google")
    return False


def _generated() -> Any:
    with installed("google-cloud-aiplatform"):
        from google.cloud import aiplatform_v1
    return aiplatform_v1


@contextlib.contextmanager
def installed(package: str) -> Iterator[None]:
    """Say the command that installs a package where it is missing."""
    try:
        yield
    except ImportError as error:
        message = f"backend 'vertex' needs {package}: {error}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[vertex]'") from error


def none_if_missing(act: Callable[[], T]) -> T | None:
    """Read what may not be there."""
    try:
        return act()
    except NotFoundError:
        return None


def types() -> Any:
    """Give the messages of the API; imported when they are first needed, for that takes a second."""
    return _generated().types
