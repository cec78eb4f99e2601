"""Requests and answers, as front, worker and container pass them on."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import orjson

from modeldeploy.errors import ModelDeployError

JSON_TYPE = "application/json"
REVISION_HEADER = "modeldeploy-revision"
"""Pins a request to a revision; every answer carries the one that answered."""

ROWS_HEADER = "modeldeploy-rows"
"""On a request: tell in the answer, under the same name, how many rows were predicted."""

SHADOW_HEADER = "modeldeploy-shadow"
"""On a copy that a shadow is sent: nobody waits for its answer."""


@attrs.define(slots=True)
class Request:
    """One HTTP request, whole; header names in lower case, ``path`` percent-decoded, ``query`` as it came.

    Requests may share their headers: whoever wants others makes another request.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    body: bytes = b""
    tried: int = 0
    """How many workers had it and died."""


@attrs.define(slots=True)
class Response:
    """One HTTP answer; the server adds the length and the connection headers. Answers may share their headers, as requests may."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


class RefusedError(ModelDeployError):
    """The caller's mistake, with the status that says so; nothing was predicted."""

    def __init__(self, status: int, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.field = field

    def response(self) -> Response:
        """Make the answer of it."""
        return failure(self.status, str(self), field=self.field)


def json_response(status: int, data: object, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with ``data`` as JSON."""
    return Response(status, orjson.dumps(data), {"content-type": JSON_TYPE, **(headers or {})})


def failure(
    status: int, message: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with the error shape that every part of the server uses."""
    return json_response(status, {"error": message, "field": field}, headers)


def unavailable(message: str, *, retry_after: int = 1) -> Response:
    """Answer 503 with the seconds after which trying again is useful."""
    return failure(503, message, headers={"retry-after": str(retry_after)})
