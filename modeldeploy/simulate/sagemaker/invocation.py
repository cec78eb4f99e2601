"""One request to an endpoint: read, checked, and stripped to what a container is told."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs

from modeldeploy.simulate.sagemaker import shapes
from modeldeploy.simulate.sagemaker.errors import ServiceError, invalid

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_PATH = re.compile(r"/endpoints/(?P<name>[^/]+)/(?P<kind>invocations|async-invocations|invocations-response-stream)")
_OPERATIONS: Mapping[str, str] = {
    "invocations": "InvokeEndpoint",
    "async-invocations": "InvokeEndpointAsync",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
}
# All others are stripped. Content-Type and Accept are passed on beside these.
_PASSED = (
    "Custom-Attributes", "Target-Model", "Target-Variant", "Target-Container-Hostname", "Inference-Id", "Session-Id",
    "Inference-Component", "Enable-Explanations", "Prefix-Aware-Id",
)  # fmt: skip


@attrs.frozen
class Invocation:
    """One checked request; ``given`` has its members by the names of the service's model."""

    operation: str
    endpoint: str
    given: Mapping[str, Any]
    body: bytes
    container_headers: Mapping[str, str]
    begun: float = attrs.field(factory=time.perf_counter)
    """When it was read, by ``time.perf_counter``."""

    @property
    def target_variant(self) -> str | None:
        """The variant that the caller pins."""
        return self.given.get("TargetVariant")


def operation_of(path: str) -> str | None:
    """Name the operation of a path of the runtime; None when it has none."""
    found = _PATH.fullmatch(path)
    return None if found is None else _OPERATIONS[found["kind"]]


def read(environ: WSGIEnvironment, body: bytes, *, max_body: int) -> Invocation:
    """Read a request; the service's refusal when it is not one."""
    found = _PATH.fullmatch(environ["PATH_INFO"])
    if found is None:
        code, text = "UnknownOperationException", "There is no such operation."
        raise ServiceError(code, text, status=404)
    operation = _OPERATIONS[found["kind"]]
    shape = shapes.load("sagemaker-runtime").operation_model(operation).input_shape
    name = unquote(found["name"])
    given = {"EndpointName": name, **_members(shape, environ)}
    _check(shape, given, body, max_body)
    return Invocation(operation, name, given, body, _container_headers(environ))


def _check(shape: Any, given: Mapping[str, Any], body: bytes, max_body: int) -> None:
    # The service takes larger bodies than its model says, so a limit of our own stands for the model's.
    if len(body) > max_body:
        raise _validation(
            f"Value at 'body' failed to satisfy constraint: Member must have length less than or equal to {max_body}"
        )
    content = {"Body": b""} if "Body" in shape.required_members else {}
    try:
        shapes.check_request(shape, {**given, **content})
    except ServiceError as error:
        raise ServiceError("ValidationError", error.message) from error


def _validation(fault: str) -> ServiceError:
    error = invalid(f"1 validation error detected: {fault}")
    return ServiceError("ValidationError", error.message)


def _members(shape: Any, environ: WSGIEnvironment) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        place = member.serialization
        if place.get("location") == "header":
            value = header(environ, place.get("name", name))
            if value is not None:
                found[name] = int(value) if member.type_name == "integer" and value.isdecimal() else value
    return found


def header(environ: WSGIEnvironment, name: str) -> str | None:
    """Read a header of the request."""
    key = name.upper().replace("-", "_")
    return environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}")


def _container_headers(environ: WSGIEnvironment) -> dict[str, str]:
    names = ["Content-Type", "Accept", *(f"X-Amzn-SageMaker-{each}" for each in _PASSED)]
    found = {name: header(environ, name) for name in names}
    if found["Content-Type"] is None:
        found["Content-Type"] = header(environ, "X-Amzn-SageMaker-Content-Type")
    return {name: value for name, value in found.items() if value}
