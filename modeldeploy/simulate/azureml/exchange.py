"""A request and an answer as the parts of the simulator hand them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs
import orjson

from modeldeploy.simulate.azureml.errors import ServiceError, bad_request
from modeldeploy.simulate.server import HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Json = dict[str, Any]
_JSON = "application/json; charset=utf-8"


@attrs.frozen
class Request:
    """One request; names of headers are in lower case, the path is decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    stream: IO[bytes]
    length: int

    def body(self) -> bytes:
        """Read the body."""
        self.stream.seek(0)
        return self.stream.read()

    def json(self) -> Json:
        """Read the body as a JSON object; the service's error when it is none."""
        try:
            value = orjson.loads(self.body() or b"{}")
        except orjson.JSONDecodeError as error:
            message = "The body is not JSON."
            raise bad_request(message) from error
        if not isinstance(value, dict):
            message = "The body is not a JSON object."
            raise bad_request(message)
        return value


@attrs.frozen
class Answer:
    """One answer."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    def adding(self, headers: Mapping[str, str]) -> Answer:
        """Give it with headers that it does not have yet."""
        return attrs.evolve(self, headers={**headers, **self.headers})


def read(environ: WSGIEnvironment) -> Request:
    """Read a request whose body the server has put aside whole."""
    headers = {name.lower(): str(value) for name, value in environ[HEADERS].items()}
    return Request(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
        {name.lower(): value for name, value in parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)},
        headers,
        environ["wsgi.input"],
        int(environ.get("CONTENT_LENGTH") or 0),
    )


def answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an answer of a JSON value."""
    return Answer(status, {"Content-Type": _JSON, **(headers or {})}, orjson.dumps(value))


def refusal(error: ServiceError) -> Answer:
    """Make the answer that an error is."""
    return answer(error.status, {"error": error.body()}, error.headers)
