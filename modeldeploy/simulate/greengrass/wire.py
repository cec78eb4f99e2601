"""Requests of the REST protocol, taken apart by botocore's own model of the service, and answers held against it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import attrs
import orjson

from modeldeploy.simulate.sagemaker import shapes
from modeldeploy.simulate.sagemaker.errors import ServiceError

if TYPE_CHECKING:
    from botocore.model import OperationModel

SERVICE = "greengrassv2"
_NAMED = re.compile(r"\{(\w+)\+?\}")


@attrs.frozen
class Route:
    """How an operation is asked for."""

    method: str
    path: re.Pattern[str]
    operation: str


@functools.cache
def routes() -> tuple[Route, ...]:
    """List the operations of the service, those with the longest fixed paths first."""
    service = shapes.load(SERVICE)
    found = [service.operation_model(name).http | {"operation": name} for name in service.operation_names]
    found.sort(key=lambda http: -len(_NAMED.sub("", http["requestUri"])))
    return tuple(Route(http["method"], _pattern(http["requestUri"]), http["operation"]) for http in found)


def _pattern(uri: str) -> re.Pattern[str]:
    parts = [
        f"(?P<{part}>[^/]+)" if odd else re.escape(part) for odd, part in zip(_odd(), _NAMED.split(uri), strict=False)
    ]
    return re.compile("".join(parts))


def _odd() -> Any:
    while True:
        yield False
        yield True


def read(method: str, path: str, query: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """Give the operation of a request and its parameters; the service's error when they do not fit its model."""
    for route in routes():
        match = route.path.fullmatch(path)
        if match is not None and route.method == method:
            operation = shapes.load(SERVICE).operation_model(route.operation)
            given = {name: unquote(value) for name, value in match.groupdict().items()}
            found = {**_body(body), **_located(operation, given, dict(parse_qsl(query)))}
            if operation.input_shape is not None:
                shapes.check_request(operation.input_shape, found)
            return route.operation, found
    raise ServiceError("UnknownOperationException", f"{method} {path} is no operation of the service.", status=404)


def _located(operation: OperationModel, uri: Mapping[str, str], query: Mapping[str, str]) -> dict[str, Any]:
    shape: Any = operation.input_shape
    found: dict[str, Any] = {}
    for name, member in (shape.members if shape is not None else {}).items():
        place = member.serialization.get("location")
        source = {"uri": uri, "querystring": query}.get(str(place), {})
        text = source.get(member.serialization.get("name", name))
        if text is not None:
            found[name] = int(text) if member.type_name == "integer" else text
    return found


def _body(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data or b"{}")
    except orjson.JSONDecodeError as error:
        raise ServiceError("ValidationException", "The request is not JSON.") from error
    if not isinstance(found, dict):
        raise ServiceError("ValidationException", "The request holds no object.")
    return found


def check_answer(operation: str, answer: Mapping[str, Any]) -> int:
    """Raise when an answer of ours is not one of the service's; give its status."""
    model = shapes.load(SERVICE).operation_model(operation)
    shapes.check_answer(operation, model.output_shape, answer)
    return int(model.http.get("responseCode", 200))
