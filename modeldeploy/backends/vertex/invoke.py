"""One request to an endpoint, and what its answer means.

The body goes as it is (``RawPredict``), without the conversion of each number to a protocol message, which takes ten times as long and makes
floats of whole numbers. The service passes on the content type and no other header, so binary tensors travel with their length in it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.vertex.capabilities import MOST_BYTES, MOST_DEDICATED_BYTES
from modeldeploy.backends.vertex.client import types
from modeldeploy.backends.vertex.errors import of_prediction, said_by, translated
from modeldeploy.backends.vertex.provider import Provider
from modeldeploy.errors import InvalidRequestError, ModelDeployError, NotFoundError, PredictionError, UnavailableError
from modeldeploy.serving import binary_type
from modeldeploy.serving.messages import REVISION_HEADER
from modeldeploy.values.serving import Payload

DEPLOYED = "x-vertex-ai-deployed-model-id"
"""Names in an answer who gave it; over gRPC this is assumed from the REST header."""
ENDPOINT = "x-vertex-ai-endpoint-id"
"""Names the endpoint for a dedicated address."""
_JSON = "application/json"


@attrs.frozen
class Door:
    """Where an endpoint is called, and whose the deployed models' ids are."""

    resource: str
    dns: str = ""
    revisions: Mapping[str, str] = attrs.field(factory=dict[str, str])

    @property
    def most(self) -> int:
        """The most bytes that a request may have."""
        return MOST_DEDICATED_BYTES if self.dns else MOST_BYTES


class Caller:
    """Calls endpoints; safe to use from several threads."""

    def __init__(self, provider: Provider, tail: Callable[[str, str], str], idempotent: Callable[[str], bool]) -> None:
        self._provider = provider
        self._tail = tail
        self._idempotent = idempotent
        self._doors: dict[str, Door] = {}
        self._lock = threading.Lock()

    def call(self, endpoint: str, payload: Payload, *, timeout: float) -> Payload:
        """Send one request; one whose answer was lost is sent once more if the models that may have had it allow that."""
        if not is_name(endpoint):
            raise _nowhere(endpoint)
        until = time.monotonic() + timeout
        try:
            return self._through(endpoint, payload, until)
        except UnavailableError:
            if until - time.monotonic() <= 0 or not self._idempotent(endpoint):
                raise
        except PredictionError as error:
            raise self._told(error, endpoint) from error.__cause__
        return self._through(endpoint, payload, until)

    def _through(self, endpoint: str, payload: Payload, until: float) -> Payload:
        known = self._doors.get(endpoint)
        try:
            return self._send(endpoint, known or self._open(endpoint), payload, until)
        except NotFoundError:
            # It may have been made anew, with another address: whoever refused it did nothing.
            self.forget(endpoint)
            if known is None:
                raise
        return self._send(endpoint, self._open(endpoint), payload, until)

    def _open(self, endpoint: str) -> Door:
        found = self._provider.entity(endpoint)
        if found is None:
            raise _nowhere(endpoint)
        seen = self._provider.read(found)
        door = Door(seen.resource, seen.dns, {each.id: each.name for each in seen.deployed})
        with self._lock:
            self._doors[endpoint] = door
        return door

    def forget(self, endpoint: str) -> None:
        """Forget an endpoint: it refused what is remembered, or is gone."""
        with self._lock:
            self._doors.pop(endpoint, None)

    def _send(self, endpoint: str, door: Door, payload: Payload, until: float) -> Payload:
        kind = binary_type.folded(_plain(payload.headers)).get("content-type", _JSON)
        if len(payload.body) > door.most:
            message = f"the request has {len(payload.body):,} bytes, and endpoint {endpoint!r} takes {door.most:,}"
            raise InvalidRequestError(message, hint="send fewer rows, use a dedicated endpoint, or a batch job")
        answer, told = self._ask(endpoint, door, kind, bytes(payload.body), max(0.001, until - time.monotonic()))
        revision = self._whose(endpoint, told.get(DEPLOYED, ""))
        headers = {"content-type": answer.content_type, **({REVISION_HEADER: revision} if revision else {})}
        return Payload(answer.data, binary_type.unfolded(headers))

    def _ask(self, endpoint: str, door: Door, kind: str, body: bytes, left: float) -> tuple[Any, dict[str, str]]:
        import grpc
        from google.api.httpbody_pb2 import HttpBody

        request = types().RawPredictRequest(endpoint=door.resource, http_body=HttpBody(content_type=kind, data=body))
        routed = ("x-goog-request-params", f"endpoint={urllib.parse.quote(door.resource)}")
        named = [(ENDPOINT, endpoint)] if door.dns else []
        # The transport's own call, for the client's gives the answer without what came along with it.
        stub = self._provider.client.service("prediction", host=door.dns).transport.raw_predict
        about = {"endpoint": endpoint}
        try:
            answer, call = stub.with_call(request, timeout=left, metadata=[routed, *named])
        except grpc.RpcError as error:
            raise of_prediction(said_by(error), about) from error
        except Exception:
            # Of the credentials, which are asked for on the way.
            with translated(**about):
                raise
        came = [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]
        return answer, {name: value for name, value in came if isinstance(value, str)}

    def _whose(self, endpoint: str, deployed: str) -> str:
        """Name the revision that answered; an id that is not known yet is looked up once."""
        if not deployed:
            return ""
        door = self._doors.get(endpoint)
        if door is None or deployed not in door.revisions:
            with contextlib.suppress(ModelDeployError):
                door = self._open(endpoint)
        return door.revisions.get(deployed, "") if door else ""

    def _told(self, error: PredictionError, endpoint: str) -> PredictionError:
        """Add the container's last lines, which say what its status does not, where it is known whose they are."""
        last = ""
        with contextlib.suppress(ModelDeployError):
            last = self._tail(endpoint, self._alone(endpoint))
        if not last:
            return error
        message = f"{error.message}; the last lines of its log: {last}"
        return PredictionError(message, status=error.status, body=error.body, hint=error.hint, context=error.context)

    def _alone(self, endpoint: str) -> str:
        seen = self._provider.seen(endpoint)
        live = list(seen.traffic.live) if seen else []
        return live[0] if len(live) == 1 else ""


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    for name in ("content-type", binary_type.HEADER):
        value = found.get(name, "")
        if not (value.isascii() and (value.isprintable() or not value)):
            message = f"header {name!r} of the request is {value[:80]!r}"
            raise InvalidRequestError(message, field=name, hint="printable ASCII characters are passed on")
    return found


def _nowhere(endpoint: str) -> NotFoundError:
    message = f"there is no endpoint {endpoint[:80]!r}"
    return NotFoundError(message, hint="Endpoint.list() names those that there are")


def check_timeout(timeout: float) -> None:
    """Refuse a time that is none."""
    if not timeout > 0 or math.isinf(timeout):
        message = f"timeout is {timeout!r}"
        raise InvalidRequestError(message, field="timeout", hint="use a number of seconds above 0")
