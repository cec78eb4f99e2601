"""The few calls of boto3 that are used; the only place that makes clients, and where credentials are looked for."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from modeldeploy.backends.sagemaker import shapes
from modeldeploy.backends.sagemaker.errors import translated
from modeldeploy.errors import ConfigurationError, MissingDependencyError

# A container may take 60 s; reading for less would give up on an answer that is on its way.
_READ_S, _CONNECT_S = 70, 10
_PAGE = 100
_PATIENT = ("s3",)
"""Services whose calls botocore may repeat by itself: what they do twice is as if done once."""
_REFUSED = 300
_READS = ("Describe", "List", "Get", "Head", "Filter", "InvokeEndpoint")


@attrs.frozen
class Access:
    """Where AWS is and who asks: the caller's own chain of credentials, by a boto3 session or a profile."""

    region: str | None = None
    profile: str | None = None
    session: Any = None
    endpoint_url: str | None = None


class Client:
    """Makes the clients when they are first needed, and keeps them; safe to use from several threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._made: dict[tuple[str, int], Any] = {}
        self._lock = threading.RLock()
        self.writes = 0
        """Requests so far that changed something at the provider, each as often as it was sent and not refused."""

    @functools.cached_property
    def session(self) -> Any:
        """The boto3 session; a session of the sagemaker package holds one."""
        given = self._access.session
        if given is not None:
            return getattr(given, "boto_session", given)
        boto3 = _boto3()
        with translated():
            return boto3.Session(region_name=self._access.region, profile_name=self._access.profile)

    @functools.cached_property
    def region(self) -> str:
        """The region; ConfigurationError when none is configured."""
        region = self._access.region or self.session.region_name
        if not region:
            message = "no AWS region is configured"
            raise ConfigurationError(message, hint="pass region=, or set AWS_REGION, or put it into the profile")
        return str(region)

    def service(self, name: str, *, read_s: int = _READ_S) -> Any:
        """Give the client of a service; waits at most ``read_s`` seconds for an answer."""
        key = (name, read_s)
        # A session is not safe to make clients from in several threads.
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(name, read_s)
            return self._made[key]

    def _make(self, name: str, read_s: int) -> Any:
        from botocore.config import Config

        region = self.region
        attempts = {} if name in _PATIENT else {"retries": {"total_max_attempts": 1}}
        style = {"s3": {"addressing_style": "path"}} if self._access.endpoint_url else {}
        config = Config(connect_timeout=_CONNECT_S, read_timeout=read_s, max_pool_connections=32, **attempts, **style)
        with translated(service=name):
            made = self.session.client(name, region_name=region, endpoint_url=self._access.endpoint_url, config=config)
        made.meta.events.register(f"provide-client-params.{name}.*", _check)
        made.meta.events.register(f"after-call.{name}.*", self._count)
        return made

    def _count(self, http_response: Any, model: Any, **_: Any) -> None:
        done = http_response.status_code < _REFUSED
        if done and not model.name.startswith(_READS):
            self.writes += 1

    def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Make one call; only errors of this library leave it."""
        return self.using(self.service(service), operation, **parameters)

    @staticmethod
    def using(client: Any, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Make one call by a client of one's own."""
        with translated(**_about(parameters)):
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
        return answer

    @staticmethod
    def read(body: Any) -> bytes:
        """Read an answer's body to its end."""
        with translated(), body:
            data: bytes = body.read()
        return data

    def sagemaker(self, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Make one call of the control plane."""
        return self.call("sagemaker", operation, **parameters)

    def pages(self, service: str, operation: str, key: str, /, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Give the entries of all pages of a listing."""
        token: dict[str, str] = {}
        while True:
            page = self.call(service, operation, **parameters, **token)
            yield from page.get(key, ())
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    def account(self) -> str:
        """Ask who we are; CredentialsError when nobody."""
        return str(self.call("sts", "get_caller_identity")["Account"])

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for made in self._made.values():
                made.close()
            self._made.clear()


def _check(params: Mapping[str, Any], model: Any, **_: Any) -> None:
    if model.service_model.service_name == "sagemaker" and model.input_shape is not None:
        shapes.check(model.input_shape, params, model.name)


def wait_for(ready: Callable[[], Any], *, until: float, every: float) -> Any:
    """Ask until there is an answer or it is ``until`` by the monotonic clock; None then."""
    while (found := ready()) is None and time.monotonic() < until:
        time.sleep(every)
    return found


def _about(parameters: Mapping[str, Any]) -> dict[str, str]:
    named = {"EndpointName": "endpoint", "ModelName": "model", "EndpointConfigName": "config", "Bucket": "bucket"}
    return {ours: str(parameters[theirs]) for theirs, ours in named.items() if theirs in parameters}


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as error:
        message = "backend 'sagemaker' needs boto3"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[sagemaker]'") from error
    return boto3
