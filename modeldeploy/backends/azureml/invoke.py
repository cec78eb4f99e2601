"""One request to an endpoint, and what its answer means.

By a client of our own: the SDK's ``invoke`` keeps the headers of a call for all later ones (azure-ai-ml 1.35.2), so that one pinned call
would pin every other, and asks Resource Manager two or three times for each prediction.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from modeldeploy.backends.azureml.client import Client
from modeldeploy.backends.azureml.described import Seen
from modeldeploy.backends.azureml.errors import of_scoring
from modeldeploy.backends.azureml.keys import Door, Doors
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.errors import (
    CredentialsError,
    InvalidRequestError,
    ModelDeployError,
    NotFoundError,
    PredictionError,
    UnavailableError,
)
from modeldeploy.serving import binary_type
from modeldeploy.serving.messages import REVISION_HEADER
from modeldeploy.values.serving import Payload

PIN = "azureml-model-deployment"
"""Names the deployment that is to answer, and in an answer the one that did."""
_REQUEST_ID = "x-ms-client-request-id"
_GOOD = 200
_CONNECT_S = 10.0
_HOP_BY_HOP = frozenset(
    {"connection", "host", "content-length", "transfer-encoding", "authorization", REVISION_HEADER, PIN}
)
_POOL = 32


class Caller:
    """Calls endpoints; safe to use from several threads."""

    def __init__(
        self,
        client: Client,
        see: Callable[[str], Seen | None],
        tail: Callable[[str, str], str],
        idempotent: Callable[[str, str | None], bool],
    ) -> None:
        self._see = see
        self._tail = tail
        self._idempotent = idempotent
        self._doors = Doors(client)

    @functools.cached_property
    def _http(self) -> Any:
        import urllib3

        return urllib3.PoolManager(num_pools=_POOL, maxsize=_POOL, retries=False)

    def close(self) -> None:
        """Close every connection."""
        made = self.__dict__.pop("_http", None)
        if made is not None:
            made.clear()

    def call(self, endpoint: str, payload: Payload, *, revision: str | None, timeout: float) -> Payload:
        """Send one request; one whose answer was lost is sent once more if the models that may have had it allow that."""
        refuse_names(endpoint, revision)
        until = time.monotonic() + timeout
        try:
            return self._through(endpoint, payload, revision, until)
        except UnavailableError:
            if until - time.monotonic() <= 0 or not self._idempotent(endpoint, revision):
                raise
        except PredictionError as error:
            raise self._told(error, endpoint, revision) from error.__cause__
        return self._through(endpoint, payload, revision, until)

    def _through(self, endpoint: str, payload: Payload, revision: str | None, until: float) -> Payload:
        door, remembered = self._doors.known(endpoint), True
        if door is None:
            door, remembered = self._open(endpoint), False
        try:
            return self._send(endpoint, door, payload, revision, until)
        except (CredentialsError, NotFoundError):
            # The key was changed, or the endpoint was made anew with another address: whoever refused it did nothing.
            self._doors.forget(endpoint)
            if not remembered:
                raise
        return self._send(endpoint, self._open(endpoint), payload, revision, until)

    def _open(self, endpoint: str) -> Door:
        seen = self._see(endpoint)
        if seen is None:
            message = f"there is no endpoint {endpoint!r}"
            raise NotFoundError(message, hint="Endpoint.list() names those that there are")
        if not seen.uri:
            message = f"endpoint {endpoint!r} has no address yet"
            raise UnavailableError(message)
        return self._doors.open(endpoint, seen.uri, seen.auth_mode)

    def _send(self, endpoint: str, door: Door, payload: Payload, revision: str | None, until: float) -> Payload:
        left = max(0.001, until - time.monotonic())
        request = headers(binary_type.folded(payload.headers), door.secret, revision)
        about = {"endpoint": endpoint, "request": request[_REQUEST_ID]}
        status, answered, body = self._post(door.uri, bytes(payload.body), request, left, about)
        if status != _GOOD:
            raise of_scoring(status, answered, body, about)
        deployment = answered.get(PIN, "")
        kept = {name: value for name, value in answered.items() if name not in _DROPPED}
        return Payload(body, binary_type.unfolded({**kept, **({REVISION_HEADER: deployment} if deployment else {})}))

    def _post(
        self, uri: str, body: bytes, sent: Mapping[str, str], left: float, about: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        import urllib3

        patience = urllib3.Timeout(connect=min(_CONNECT_S, left), read=left)
        try:
            answer = self._http.request("POST", uri, body=body, headers=dict(sent), timeout=patience, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            message = f"endpoint {about['endpoint']!r} gave no answer: {type(error).__name__}"
            raise UnavailableError(message, context=about) from error
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data

    def _told(self, error: PredictionError, endpoint: str, revision: str | None) -> PredictionError:
        """Add the container's last lines, which say what its status does not, where it is known whose they are."""
        last = ""
        with contextlib.suppress(ModelDeployError):
            last = self._tail(endpoint, revision or self._alone(endpoint))
        if not last:
            return error
        message = f"{error.message}; the last lines of its log: {last}"
        return PredictionError(message, status=error.status, body=error.body, hint=error.hint, context=error.context)

    def _alone(self, endpoint: str) -> str:
        seen = self._see(endpoint)
        live = list(seen.traffic.live) if seen else []
        return live[0] if len(live) == 1 else ""


_DROPPED = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "server", "date", PIN})


def headers(given: Mapping[str, str], secret: str, revision: str | None) -> dict[str, str]:
    """Write the headers of one request: made anew for each, so that nothing of one shows in another."""
    kept = {name: value for name, value in given.items() if name.lower() not in _HOP_BY_HOP}
    for name, value in kept.items():
        if not (name.isascii() and value.isascii() and value.isprintable()):
            message = f"header {name[:80]!r} of the request is {value[:80]!r}"
            raise InvalidRequestError(message, field=name, hint="printable ASCII characters are passed on")
    pin = {PIN: revision} if revision is not None else {}
    return {**kept, **pin, "authorization": f"Bearer {secret}", _REQUEST_ID: str(uuid.uuid4())}


def refuse_names(endpoint: str, revision: str | None) -> None:
    """Refuse names that nothing can have."""
    if not is_name(endpoint):
        message = f"there is no endpoint {endpoint[:80]!r}"
        raise NotFoundError(message, hint="Endpoint.list() names those that there are")
    if revision is not None and not is_name(revision):
        message = f"endpoint {endpoint!r} has no revision {revision[:80]!r}"
        raise NotFoundError(message)


def check_timeout(timeout: float) -> None:
    """Refuse a time that is none."""
    if not timeout > 0 or math.isinf(timeout):
        message = f"timeout is {timeout!r}"
        raise InvalidRequestError(message, field="timeout", hint="use a number of seconds above 0")
