"""The few calls of azure-ai-ml that are used; the only place that makes clients, and where credentials are looked for.

The SDK is tamed here, once (azure-ai-ml 1.35.2, each by a test):

* Without ``enable_telemetry=False`` and a user agent of one's own it would install a process-wide tracer in a notebook.
* ``begin_*`` starts a thread that polls for as long as the operation takes and prints dots on standard output. Nothing is polled here: the
  operations are asked to begin, and the resource is read to see how far they are.
* Its retries would hide how often something was sent; the engine repeats what may be repeated.
* The cloud is a variable of the process, where uploads look for the address of storage. It is set for the moment of a call that reads it,
  under one lock, and put back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

import modeldeploy
from modeldeploy.backends.azureml.errors import translated
from modeldeploy.backends.azureml.settings import refuse_incomplete
from modeldeploy.errors import ConfigurationError, MissingDependencyError, NotFoundError

T = TypeVar("T")
ARM_SCOPE = "https://management.azure.com/.default"
_OPERATION = "azure-asyncoperation"
_REFUSED = 300
_WRITES = frozenset({"PUT", "PATCH", "DELETE", "POST"})
# These read, whatever their method says; an upload changes nothing before an asset is registered.
_READS = ("/listkeys", "/listsecrets", "/token", "/getlogs", "/startpendingupload", "/listsas")
_CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"
_globals = threading.RLock()
"""Guards what the SDK keeps for the whole process."""


@attrs.frozen
class Cloud:
    """A cloud that is not the public one: its name, and what the SDK must know of it."""

    name: str
    metadata: Mapping[str, str]
    authentication_policy: Any = None
    """In place of the SDK's, which sends no token over plain HTTP."""


@attrs.frozen
class Access:
    """Which workspace, and who asks."""

    subscription_id: str = ""
    resource_group: str = ""
    workspace: str = ""
    credential: Any = None
    cloud: Cloud | None = None


class Client:
    """Makes the SDK's client when it is first needed, and keeps it; safe to use from several threads."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._heard = threading.local()
        self._lock = threading.RLock()
        self.writes = 0
        """Requests so far that changed something at the provider, each as often as it was sent and not refused."""

    @functools.cached_property
    def credential(self) -> Any:
        """Who asks: the one that was given, or the default chain of azure-identity."""
        if self.access.credential is not None:
            return self.access.credential
        with _installed("azure-identity"):
            from azure.identity import DefaultAzureCredential
        _take_what_identity_tells()
        with translated():
            return DefaultAzureCredential()

    @property
    def sdk(self) -> Any:
        """The ``MLClient``."""
        with self._lock:
            return self._sdk

    @functools.cached_property
    def _sdk(self) -> Any:
        access, cloud = self.access, self.access.cloud
        where = {
            "subscription_id": access.subscription_id,
            "resource_group": access.resource_group,
            "workspace": access.workspace,
        }
        refuse_incomplete(where)
        kind = _ml_client()
        extra: dict[str, Any] = {}
        if cloud is not None:
            extra = {"cloud": cloud.name, "cloud_metadata": dict(cloud.metadata)}
            if cloud.authentication_policy is not None:
                extra["authentication_policy"] = cloud.authentication_policy
        with translated(), self._in_cloud():
            made = kind(
                self.credential,
                access.subscription_id,
                access.resource_group,
                access.workspace,
                enable_telemetry=False,
                show_progress=False,
                user_agent=_agent(),
                retry_total=0,
                raw_response_hook=self._hear,
                **extra,
            )
        _silence()
        for family, attribute in _BEGINNING.items():
            _unwatch(getattr(made, family), attribute)
        return made

    @contextlib.contextmanager
    def _in_cloud(self) -> Iterator[None]:
        """Let the SDK's variable of the process be this client's, and put it back."""
        with _globals, _variable(_CLOUD_VARIABLE, self._cloud_name):
            yield

    @property
    def _cloud_name(self) -> str:
        return self.access.cloud.name if self.access.cloud else "AzureCloud"

    def call(self, act: Callable[[Any], T], **about: str | float) -> T:
        """Make calls by the SDK's client; only errors of this library leave it."""
        sdk = self.sdk
        with translated(**about):
            return act(sdk)

    def upload(self, act: Callable[[Any], T], **about: str | float) -> T:
        """Make calls that upload, too: one client at a time, for the SDK asks the process where storage is."""
        sdk = self.sdk
        with translated(**about), self._in_cloud():
            return act(sdk)

    def begin(self, act: Callable[[Any], object], **about: str | float) -> str:
        """Ask for an operation, and give the address that tells of it; empty when the service gives none."""
        self._heard.operation = ""
        self.upload(act, **about)
        return str(self._heard.operation)

    def _hear(self, response: Any) -> None:
        request, answer = response.http_request, response.http_response
        if request.method not in _WRITES or answer.status_code >= _REFUSED:
            return
        if request.url.partition("?")[0].lower().endswith(_READS):
            return
        self._heard.operation = answer.headers.get(_OPERATION, "")
        with self._lock:
            self.writes += 1

    # What the SDK has no call for

    @functools.cached_property
    def _pipeline(self) -> Any:
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy, UserAgentPolicy
        from azure.mgmt.core import ARMPipelineClient

        cloud = self.access.cloud
        own = cloud.authentication_policy if cloud else None
        known = own or BearerTokenCredentialPolicy(self.credential, ARM_SCOPE)
        agent = UserAgentPolicy(_agent())
        return ARMPipelineClient(base_url=self.arm_url, policies=[HeadersPolicy(), agent, known])

    @property
    def arm_url(self) -> str:
        """The address of Azure Resource Manager."""
        cloud = self.access.cloud
        return (cloud.metadata["resource_manager"] if cloud else "https://management.azure.com").rstrip("/")

    def ask(self, method: str, url: str, *, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        """Send one request to Azure Resource Manager; the answer's document, None when it has none."""
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        address = url if "://" in url else f"{self.arm_url}{url}"
        with translated():
            request = HttpRequest(
                method, address, params=dict(query or {}), **({"json": body} if body is not None else {})
            )
            with self._pipeline.send_request(request) as answer:
                answer.read()
                if answer.status_code >= _REFUSED:
                    raise HttpResponseError(response=answer)
                self._count(method)
                return answer.json() if answer.content else None

    def _count(self, method: str) -> None:
        if method in _WRITES:
            with self._lock:
                self.writes += 1

    @property
    def place(self) -> str:
        """The path of the workspace at Azure Resource Manager."""
        access = self.access
        return (
            f"/subscriptions/{access.subscription_id}/resourceGroups/{access.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{access.workspace}"
        )

    def close(self) -> None:
        """Close connections; a client that was never made needs none."""
        with self._lock:
            for name, close in (("_sdk", _close_sdk), ("_pipeline", lambda pipeline: pipeline.close())):
                made = self.__dict__.pop(name, None)
                if made is not None:
                    close(made)


# The SDK, tamed

_BEGINNING = {
    "online_endpoints": "_online_operation",
    "online_deployments": "_online_deployment",
    "batch_endpoints": "_batch_operation",
    "batch_deployments": "_batch_deployment",
}
"""Where each family of calls keeps the generated operations that begin what takes long."""


class _Unwatched:
    """Generated operations whose ``begin_*`` begin, and start no thread that polls and prints; there is no public switch."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not name.startswith("begin_"):
            return found

        def begin(*args: Any, **kwargs: Any) -> Any:
            return found(*args, **{**kwargs, "polling": False})

        return begin


def _unwatch(family: Any, attribute: str) -> None:
    inner = getattr(family, attribute, None)
    if inner is None:
        message = f"this azure-ai-ml keeps its operations elsewhere than in {type(family).__name__}.{attribute}"
        raise ConfigurationError(message, hint="install azure-ai-ml>=1.35.1,<1.36")
    setattr(family, attribute, _Unwatched(inner))


@functools.cache
def _take_what_identity_tells() -> None:
    """Keep Python from printing, where the application configured no logging, the page that says which logins were tried; our error says it."""
    logging.getLogger("azure.identity").addHandler(logging.NullHandler())


def _silence() -> None:
    """Take from the SDK what it tells on standard error whether progress is to be shown or not."""
    from azure.ai.ml._artifacts import _blob_storage_helper as helper

    # Shadows the builtin in that module alone, whose only use of it is an escape sequence after each upload.
    vars(helper)["print"] = _say_nothing
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)


_TALKATIVE = (
    "azure.ai.ml._telemetry",
    "azure.ai.ml.operations._online_deployment_operations",
    "azure.ai.ml.operations._batch_deployment_operations",
    "azure.ai.ml._utils._endpoint_utils",
)
"""Loggers that tell of every call, and of each thing that is not there as of an error; some have a handler on standard error of their own."""


def _say_nothing(*_args: object, **_kwargs: object) -> None:
    return


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _close_sdk(sdk: Any) -> None:
    """Close the connections of every generated client; MLClient itself has no way to."""
    for made in vars(sdk).values():
        if callable(getattr(made, "close", None)) and callable(getattr(made, "send_request", None)):
            made.close()


def _agent() -> str:
    return f"modeldeploy/{modeldeploy.__version__}"


def _ml_client() -> Any:
    with _installed("azure-ai-ml"):
        from azure.ai.ml import MLClient
    return MLClient


@contextlib.contextmanager
def _installed(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        message = f"backend 'azureml' needs {package}: {error}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[azureml]'") from error


def none_if_missing(act: Callable[[], T]) -> T | None:
    """Read what may not be there."""
    try:
        return act()
    except NotFoundError:
        return None
