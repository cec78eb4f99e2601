"""What goes back over the wire."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

import attrs
import orjson

from modeldeploy.simulate.sagemaker.errors import ServiceError

JSON = "application/x-amz-json-1.1"


@attrs.frozen
class Answer:
    """Status, headers and body; with ``parts`` the body is sent piece by piece as it comes."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    parts: Iterable[bytes] | None = None


def result(value: Mapping[str, Any]) -> Answer:
    """Answer with the result of an operation of the control plane."""
    return Answer(200, _headers(JSON), orjson.dumps(value))


def control_error(error: ServiceError) -> Answer:
    """Answer with an error as the control plane writes it."""
    body = {"__type": error.code, "message": error.message, **error.members}
    return Answer(error.status, _headers(JSON), orjson.dumps(body))


def runtime_error(error: ServiceError) -> Answer:
    """Answer with an error as the runtime writes it."""
    headers = {**_headers("application/json"), "x-amzn-ErrorType": error.code}
    return Answer(error.status, headers, orjson.dumps({"Message": error.message, **error.members}))


_QUERY_CODES = {
    "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
}
_STORAGE_CODES = {
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
}


def refused(error: ServiceError, *, storage: bool, json: bool) -> Answer:
    """Answer for another service that a signature is not good: in JSON, or in the XML of storage or of the older services."""
    if json:
        return control_error(error)
    code, message = (_STORAGE_CODES if storage else _QUERY_CODES).get(error.code, error.code), escape(error.message)
    inner = f"<Code>{code}</Code><Message>{message}</Message>"
    body = (
        f"<Error>{inner}<RequestId>{request_id()}</RequestId></Error>"
        if storage
        else f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>{request_id()}</RequestId></ErrorResponse>"
    )
    return Answer(error.status, _headers("text/xml"), body.encode())


def request_id() -> str:
    """Make the id that each answer carries."""
    return str(uuid.uuid4())


def _headers(content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type, "x-amzn-RequestId": request_id()}
