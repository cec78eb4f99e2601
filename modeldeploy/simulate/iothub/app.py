"""The door: who may, what goes wrong on demand, and which request is which operation."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import attrs
import orjson

from modeldeploy.simulate.iothub import query
from modeldeploy.simulate.iothub.access import Access
from modeldeploy.simulate.iothub.devices import AGENT
from modeldeploy.simulate.iothub.errors import LostAnswerError, ServiceError
from modeldeploy.simulate.iothub.hub import Hub

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

API = "2021-04-12"
_log = logging.getLogger(__name__)
_GOOD, _NOTHING = 200, 204


@attrs.frozen
class Asked:
    """One request."""

    operation: str
    names: tuple[str, ...]
    body: Any
    headers: Mapping[str, str]


@attrs.frozen
class Answer:
    """What goes back."""

    body: Any = None
    status: int = _GOOD
    headers: Mapping[str, str] = attrs.field(factory=dict)


_ROUTES = tuple(
    (method, re.compile(pattern), operation)
    for method, pattern, operation in (
        ("GET", r"/configurations", "Configuration_GetConfigurations"),
        ("POST", r"/configurations/testQueries", "Configuration_TestQueries"),
        ("GET", r"/configurations/([^/]+)", "Configuration_Get"),
        ("PUT", r"/configurations/([^/]+)", "Configuration_CreateOrUpdate"),
        ("DELETE", r"/configurations/([^/]+)", "Configuration_Delete"),
        ("POST", r"/devices/query", "Devices_Query"),
        ("POST", r"/devices/([^/]+)/applyConfigurationContent", "Configuration_ApplyOnEdgeDevice"),
        ("PATCH", r"/twins/([^/]+)", "Devices_UpdateTwin"),
        ("GET", r"/twins/([^/]+)/modules/([^/]+)", "Modules_GetTwin"),
    )
)


@attrs.define(eq=False)
class App:
    """A WSGI application for one hub."""

    hub: Hub
    access: Access
    page: int
    """Twins in one page of a query."""
    heard: list[tuple[str, tuple[str, ...]]] = attrs.field(factory=list)
    """Every request that was let in: its operation, and what it was about."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            answer = self._answer(environ)
        except ServiceError as error:
            answer = Answer(error.document(), error.status, error.headers)
        data = b"" if answer.body is None else orjson.dumps(answer.body)
        head = {"Content-Type": "application/json; charset=utf-8", **answer.headers, "Content-Length": str(len(data))}
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(head.items()))
        return [data]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        self.access.check(environ.get("HTTP_AUTHORIZATION", ""))
        asked = self._read(environ)
        faults = self.hub.faults
        throttled, failed = faults.count()
        if throttled:
            raise ServiceError(429, "ThrottlingException", "Too many requests.", headers={"Retry-After": "1"})
        if failed:
            raise ServiceError(500, "ServerError", "The server failed.")
        if faults.take(faults.drop_before, asked.operation):
            raise LostAnswerError
        self.heard.append((asked.operation, asked.names))
        with self.hub.lock:
            self.hub.go_on()
            answer = _OPERATIONS[asked.operation](self, asked)
        if faults.take(faults.drop_after, asked.operation):
            raise LostAnswerError
        return answer

    @staticmethod
    def _read(environ: WSGIEnvironment) -> Asked:
        path = str(environ.get("RAW_URI", environ["PATH_INFO"])).partition("?")[0]
        version = parse_qs(environ.get("QUERY_STRING", "")).get("api-version", [""])[0]
        if version != API:
            raise ServiceError(
                400, "InvalidProtocolVersion", f"api-version is {version!r}; the rehearsal speaks {API}."
            )
        found = _route(environ["REQUEST_METHOD"], path)
        headers = {
            key[5:].lower().replace("_", "-"): str(value) for key, value in environ.items() if key.startswith("HTTP_")
        }
        return Asked(*found, _document(environ["wsgi.input"].read()), headers)

    # The operations

    def get_configurations(self, _asked: Asked) -> Answer:
        """List every configuration."""
        return Answer([self.hub.shown(name) for name in sorted(self.hub.configurations)])

    def get_configuration(self, asked: Asked) -> Answer:
        """Read one."""
        return Answer(self.hub.shown(asked.names[0]))

    def put_configuration(self, asked: Asked) -> Answer:
        """Make or change one."""
        return Answer(self.hub.put(asked.names[0], _object(asked.body), asked.headers.get("if-match")))

    def delete_configuration(self, asked: Asked) -> Answer:
        """Delete one."""
        self.hub.delete(asked.names[0], asked.headers.get("if-match"))
        return Answer(status=_NOTHING)

    def test_queries(self, asked: Asked) -> Answer:
        """Say whether a target condition can be read."""
        body = _object(asked.body)
        try:
            query.condition(body.get("targetCondition", "*"))
        except ServiceError as error:
            return Answer({"targetConditionError": error.message, "customMetricQueryErrors": {}})
        return Answer({"targetConditionError": None, "customMetricQueryErrors": {}})

    def apply(self, asked: Asked) -> Answer:
        """Give a manifest to one device."""
        self.hub.apply(asked.names[0], _object(asked.body))
        return Answer(status=_NOTHING)

    def query(self, asked: Asked) -> Answer:
        """Give a page of twins."""
        found = self.hub.list(str(_object(asked.body).get("query", "")))
        start = _number(asked.headers.get("x-ms-continuation", "0"))
        size = min(self.page, _number(asked.headers.get("x-ms-max-item-count", str(self.page))))
        more = {"x-ms-continuation": str(start + size)} if start + size < len(found) else {}
        return Answer(found[start : start + size], headers={"x-ms-item-type": "twin", **more})

    def update_twin(self, asked: Asked) -> Answer:
        """Merge tags into a twin."""
        body = _object(asked.body)
        if set(body) - {"tags", "properties", "deviceId", "etag"}:
            raise ServiceError(400, "ArgumentInvalid", f"A twin has no members {sorted(body)}.")
        return Answer(self.hub.tag(asked.names[0], body.get("tags", {})))

    def get_module_twin(self, asked: Asked) -> Answer:
        """Read the twin of an agent."""
        device, module = asked.names
        if module != AGENT:
            raise ServiceError(400, "ArgumentInvalid", f"The rehearsal keeps no twin of module {module}.")
        return Answer(self.hub.device(device).agent_twin())


_OPERATIONS: Mapping[str, Callable[[App, Asked], Answer]] = {
    "Configuration_GetConfigurations": App.get_configurations,
    "Configuration_Get": App.get_configuration,
    "Configuration_CreateOrUpdate": App.put_configuration,
    "Configuration_Delete": App.delete_configuration,
    "Configuration_TestQueries": App.test_queries,
    "Configuration_ApplyOnEdgeDevice": App.apply,
    "Devices_Query": App.query,
    "Devices_UpdateTwin": App.update_twin,
    "Modules_GetTwin": App.get_module_twin,
}


def _route(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    for verb, pattern, operation in _ROUTES:
        match = pattern.fullmatch(path)
        if match is not None and verb == method:
            return operation, tuple(unquote(each) for each in match.groups())
    raise ServiceError(404, "InvalidOperation", f"The rehearsal of IoT Hub does not simulate {method} {path}.")


def _document(data: bytes) -> Any:
    try:
        return orjson.loads(data) if data else None
    except orjson.JSONDecodeError as error:
        raise ServiceError(400, "ArgumentInvalid", "The request is not JSON.") from error


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ServiceError(400, "ArgumentInvalid", "The request holds no object.")
    return body


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ServiceError(400, "ArgumentInvalid", f"{text!r} is not a number.")
    return int(text)
