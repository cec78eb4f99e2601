"""The few calls of boto3 that are used; the only place that makes clients, and where credentials are looked for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import attrs

from modeldeploy.backends.greengrass.errors import translated
from modeldeploy.errors import ConfigurationError, MissingDependencyError, NotFoundError

_READ_S, _CONNECT_S = 60, 10
_REFUSED = 300
_READS = ("Describe", "List", "Get", "Head")
_ONCE = ("greengrassv2", "iot")
"""Services whose calls the engine repeats, and botocore does not."""


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
        self._made: dict[str, Any] = {}
        self._lock = threading.RLock()
        self.writes = 0
        """Requests so far that changed something at the provider, each as often as it was sent and not refused."""

    @functools.cached_property
    def session(self) -> Any:
        """The boto3 session."""
        if self._access.session is not None:
            return self._access.session
        try:
            import boto3
        except ImportError as error:
            message = "backend 'greengrass' needs boto3"
            raise MissingDependencyError(message, hint="pip install 'modeldeploy[greengrass]'") from error
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

    @functools.cached_property
    def account(self) -> str:
        """The number of the account; CredentialsError when AWS does not know us."""
        return str(self.call("sts", "get_caller_identity")["Account"])

    def service(self, name: str) -> Any:
        """Give the client of a service."""
        # A session is not safe to make clients from in several threads.
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(name)
            return self._made[name]

    def _make(self, name: str) -> Any:
        from botocore.config import Config

        attempts = {"retries": {"total_max_attempts": 1}} if name in _ONCE else {}
        style = {"s3": {"addressing_style": "path"}} if self._access.endpoint_url else {}
        config = Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S, **attempts, **style)
        with translated(service=name):
            made = self.session.client(
                name, region_name=self.region, endpoint_url=self._access.endpoint_url, config=config
            )
        made.meta.events.register(f"after-call.{name}.*", self._count)
        return made

    def _count(self, http_response: Any, model: Any, **_: Any) -> None:
        if http_response.status_code < _REFUSED and not model.name.startswith(_READS):
            with self._lock:
                self.writes += 1

    def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Make one call; only errors of this library leave it."""
        with translated(operation=operation):
            answer: dict[str, Any] = getattr(self.service(service), operation)(**parameters)
        return answer

    def greengrass(self, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Make one call to Greengrass."""
        return self.call("greengrassv2", operation, **parameters)

    def iot(self, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Make one call to IoT's registry of things."""
        return self.call("iot", operation, **parameters)

    def pages(self, service: str, operation: str, key: str, /, **parameters: Any) -> Iterator[Any]:
        """Give the entries of all pages of a listing."""
        token: dict[str, str] = {}
        while True:
            page = self.call(service, operation, **parameters, **token)
            yield from page.get(key, ())
            if not page.get("nextToken"):
                return
            token = {"nextToken": page["nextToken"]}

    def find(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any] | None:
        """Make one call that reads what may not be there."""
        try:
            return self.call(service, operation, **parameters)
        except NotFoundError:
            return None

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for made in self._made.values():
                made.close()
            self._made.clear()
