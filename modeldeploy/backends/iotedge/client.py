"""The few requests to IoT Hub that are made; the only place that opens connections, and where credentials are looked for.

By a client of our own: ``azure-iot-hub`` (2.7.0) brings a compiled AMQP library for what are nine plain requests.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from modeldeploy.backends.iotedge.errors import of_answer
from modeldeploy.backends.iotedge.sas import Policy
from modeldeploy.errors import ConfigurationError, CredentialsError, MissingDependencyError, UnavailableError

API = "2021-04-12"
SCOPE = "https://iothubs.azure.net/.default"
_CONNECT_S, _READ_S = 10.0, 60.0
_TOKEN_S, _EARLY_S = 3600, 300
_REFUSED = 300
_PAGE = 100
_WRITES = frozenset({"PUT", "PATCH", "DELETE"})
_POOL = 8

Json = dict[str, Any]


@attrs.frozen
class Access:
    """Which hub, and who asks: a policy's key, or a credential as azure-identity makes them."""

    host: str
    policy: Policy | None = None
    credential: Any = None
    base_url: str = ""
    """In place of ``https://HOST``, for a rehearsal."""


class Client:
    """Asks one hub; safe to use from several threads."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.Lock()
        self._token: tuple[str, float] = ("", 0.0)
        self.writes = 0
        """Requests so far that changed something, each as often as it was sent and not refused."""

    # Configurations

    def configurations(self) -> list[Json]:
        """Read every configuration of the hub."""
        found: list[Json] = self._ask("GET", "/configurations", query={"top": "100"})
        return found

    def configuration(self, name: str) -> Json:
        """Read one configuration; NotFoundError when there is none."""
        found: Json = self._ask("GET", f"/configurations/{_quoted(name)}")
        return found

    def put_configuration(self, document: Json, *, match: str | None = None) -> Json:
        """Make a configuration, or with ``match`` (its ETag) change one; what it deploys never changes."""
        path = f"/configurations/{_quoted(document['id'])}"
        found: Json = self._ask("PUT", path, body=document, match=match)
        return found

    def delete_configuration(self, name: str, *, match: str) -> None:
        """Delete a configuration that is still as it was read."""
        self._ask("DELETE", f"/configurations/{_quoted(name)}", match=match)

    def check_condition(self, text: str) -> str:
        """Let the hub read a target condition; what is wrong with it, in its words, or nothing."""
        answer = self._ask(
            "POST", "/configurations/testQueries", body={"targetCondition": text, "customMetricQueries": {}}
        )
        return str((answer or {}).get("targetConditionError") or "")

    def apply(self, device: str, content: Json) -> None:
        """Give a manifest to one device."""
        self._ask("POST", f"/devices/{_quoted(device)}/applyConfigurationContent", body=content)
        self._count()

    # Twins

    def twins(self, source: str, condition: str) -> Iterator[Json]:
        """Give the twins of ``devices`` or ``devices.modules`` that fulfil a condition, page by page."""
        # Not SQL: the hub reads twins with it and changes nothing; the condition is the operator's own.
        text = f"SELECT * FROM {source} WHERE {condition}"  # noqa: S608
        token: dict[str, str] = {}
        while True:
            headers = {"x-ms-max-item-count": str(_PAGE), **token}
            page, told = self._send("POST", "/devices/query", body={"query": text}, headers=headers)
            yield from page or ()
            if not told.get("x-ms-continuation"):
                return
            token = {"x-ms-continuation": told["x-ms-continuation"]}

    def tag(self, device: str, tags: Mapping[str, Any]) -> None:
        """Merge tags into the twin of a device; None takes one away."""
        self._ask("PATCH", f"/twins/{_quoted(device)}", body={"tags": dict(tags)}, match="*")

    def agent(self, device: str) -> Json:
        """Read the twin of a device's edge agent."""
        found: Json = self._ask("GET", f"/twins/{_quoted(device)}/modules/{_quoted('$edgeAgent')}")
        return found

    # Asking

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        match: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        headers = {"If-Match": match} if match is not None else {}
        return self._send(method, path, body=body, headers=headers, query=query)[0]

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        import urllib3

        data = b"" if body is None else json.dumps(body).encode()
        asked = "&".join(f"{key}={value}" for key, value in {**(query or {}), "api-version": API}.items())
        head = {"Authorization": self._authorization(), "Content-Type": "application/json; charset=utf-8", **headers}
        try:
            answer = self._http.request(method, f"{self._base}{path}?{asked}", body=data, headers=head)
        except urllib3.exceptions.HTTPError as error:
            message = f"IoT Hub {self.access.host} was not reached: {error}"
            raise UnavailableError(message, context={"hub": self.access.host}) from error
        told = {name.lower(): value for name, value in answer.headers.items()}
        if answer.status >= _REFUSED:
            raise of_answer(answer.status, told, answer.data, {"hub": self.access.host})
        if method in _WRITES:
            self._count()
        return (json.loads(answer.data) if answer.data else None), told

    def _count(self) -> None:
        with self._lock:
            self.writes += 1

    @property
    def _base(self) -> str:
        return self.access.base_url or f"https://{self.access.host}"

    @functools.cached_property
    def _http(self) -> Any:
        try:
            import urllib3
        except ImportError as error:
            message = "backend 'iotedge' needs urllib3"
            raise MissingDependencyError(message, hint="pip install 'modeldeploy[iotedge]'") from error
        patience = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
        # The engine repeats what may be repeated.
        return urllib3.PoolManager(maxsize=_POOL, retries=False, timeout=patience)

    def _authorization(self) -> str:
        with self._lock:
            token, until = self._token
            if time.time() >= until:
                self._token = token, until = self._signed()
            return token

    def _signed(self) -> tuple[str, float]:
        now = time.time()
        if self.access.policy is not None:
            return self.access.policy.token(int(now) + _TOKEN_S), now + _TOKEN_S - _EARLY_S
        found = self._of_credential()
        return f"Bearer {found.token}", float(found.expires_on) - _EARLY_S

    def _of_credential(self) -> Any:
        try:
            return self._credential.get_token(SCOPE)
        except ConfigurationError:
            raise
        except Exception as error:  # every credential of azure-identity has errors of its own
            message = f"no token for IoT Hub: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            raise CredentialsError(message, hint="log in (az login), or pass connection_string=") from error

    @functools.cached_property
    def _credential(self) -> Any:
        if self.access.credential is not None:
            return self.access.credential
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            message = "nobody says who asks IoT Hub, and azure-identity is not installed"
            hint = "pass connection_string= or credential=, or pip install azure-identity"
            raise MissingDependencyError(message, hint=hint) from error
        return DefaultAzureCredential()

    def close(self) -> None:
        """Close every connection."""
        made = self.__dict__.pop("_http", None)
        if made is not None:
            made.clear()


def _quoted(name: str) -> str:
    return quote(name, safe="")
