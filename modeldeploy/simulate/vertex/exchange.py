"""Requests and answers over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs
import orjson

from modeldeploy.simulate.server import HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_JSON = "application/json; charset=UTF-8"


class Refusal(Exception):  # noqa: N818 - an answer of the service, which its callers make an error of
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@attrs.frozen
class Request:
    """One request; names of parameters and headers are in lower case, and the path is as it came, with its escapes."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: IO[bytes]
    length: int

    def json(self) -> dict[str, Any]:
        """Read the body as an object."""
        return parsed(self.body.read() or b"{}")

    def number(self, name: str) -> int | None:
        """Read a parameter that is a number; None when it is not there."""
        text = self.query.get(name, "")
        if text and not text.isdecimal():
            raise Refusal(400, "invalid", f"Invalid value for {name}: {text!r}")
        return int(text) if text else None


@attrs.frozen
class Answer:
    """One answer."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    parts: Iterable[bytes] | None = None
    """The body as it is read, instead of ``body``; its length is in the headers."""

    def send(self, start_response: StartResponse) -> Iterable[bytes]:
        """Give it to the server."""
        headers = dict(self.headers)
        if self.parts is None:
            headers["Content-Length"] = str(len(self.body))
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", list(headers.items()))
        return [self.body] if self.parts is None else self.parts


def read(environ: WSGIEnvironment) -> Request:
    """Read a request whose body the server has put aside whole."""
    headers = {name.lower(): str(value) for name, value in environ[HEADERS].items()}
    return Request(
        environ["REQUEST_METHOD"],
        environ["REQUEST_URI"].partition("?")[0],
        {name.lower(): value for name, value in parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)},
        headers,
        environ["wsgi.input"],
        int(environ.get("CONTENT_LENGTH") or 0),
    )


def parsed(data: bytes) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "parseError", "The body is no JSON.") from error
    if not isinstance(value, dict):
        raise Refusal(400, "parseError", "The body is no JSON object.")
    return value


def answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an answer of a JSON value."""
    return Answer(status, {"Content-Type": _JSON, **(headers or {})}, orjson.dumps(value))


def refused(refusal: Refusal) -> Answer:
    """Make the answer that an error is."""
    told = {"message": refusal.message, "domain": "global", "reason": refusal.reason}
    if refusal.status == HTTPStatus.NOT_MODIFIED:
        return Answer(refusal.status)
    return answer(refusal.status, {"error": {"code": refusal.status, "message": refusal.message, "errors": [told]}})
