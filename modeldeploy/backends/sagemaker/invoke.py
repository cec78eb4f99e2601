"""One request to an endpoint, and what its answer means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.client import Client
from modeldeploy.errors import InvalidRequestError, NotFoundError, PredictionError, UnavailableError
from modeldeploy.serving import binary_type
from modeldeploy.serving.messages import REVISION_HEADER
from modeldeploy.values.serving import Payload

RUNTIME = "sagemaker-runtime"
_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_MEMBERS = {
    "content-type": "ContentType",
    "accept": "Accept",
    _ATTRIBUTES: "CustomAttributes",
    "x-amzn-sagemaker-inference-id": "InferenceId",
    "x-amzn-sagemaker-session-id": "SessionId",
    "x-amzn-sagemaker-enable-explanations": "EnableExplanations",
}
"""Every other header of a request is stripped by the service, so it is not sent."""
_MOST_CHARS = {"CustomAttributes": 1024, "InferenceId": 64, "ContentType": 1024, "Accept": 1024, "SessionId": 256}
_PLAIN = re.compile(r"[\x20-\x7e]*")
# A container may take 60 s, and 70 are recommended; beyond that only what was asked for.
_LONGEST_S = 70


class Caller:
    """Calls endpoints; safe to use from several threads."""

    def __init__(
        self, client: Client, tail: Callable[[str, str], str], idempotent: Callable[[str, str | None], bool]
    ) -> None:
        self._client = client
        self._tail = tail
        self._idempotent = idempotent

    def call(self, endpoint: str, payload: Payload, *, revision: str | None, timeout: float) -> Payload:
        """Send one request; one whose answer was lost is sent once more if the models that may have had it allow that."""
        request = build(endpoint, payload, revision)
        try:
            return self._send(request, timeout)
        except UnavailableError:
            # botocore would send it up to three times by itself, whatever the model does.
            if not self._idempotent(endpoint, revision):
                raise
        except PredictionError as error:
            raise self._told(error, endpoint, revision) from error.__cause__
        return self._send(request, timeout)

    def _send(self, request: Mapping[str, Any], timeout: float) -> Payload:
        runtime = self._client.service(RUNTIME, read_s=read_timeout(timeout))
        answer = self._client.using(runtime, "invoke_endpoint", **request)
        body = self._client.read(answer["Body"])
        variant = answer.get("InvokedProductionVariant", "")
        headers = {
            "content-type": answer.get("ContentType", ""),
            # Of a guarded endpoint nobody can tell: both fleets answer under one name.
            REVISION_HEADER: "" if variant == names.PRIMARY else variant,
            _ATTRIBUTES: answer.get("CustomAttributes", ""),
        }
        return Payload(body, binary_type.unfolded({name: value for name, value in headers.items() if value}))

    def _told(self, error: PredictionError, endpoint: str, revision: str | None) -> PredictionError:
        """Add the container's last lines, which say what its status does not."""
        stream = error.context.get("stream", "")
        variant = revision or str(stream).rpartition(":")[2].partition("/")[0]
        last = self._tail(endpoint, variant) if variant else ""
        if not last:
            return error
        message = f"{error.message}; the last lines of its log: {last}"
        return PredictionError(message, status=error.status, body=error.body, hint=error.hint, context=error.context)


def build(endpoint: str, payload: Payload, revision: str | None) -> dict[str, Any]:
    """Write the parameters of InvokeEndpoint; refuses what the service would."""
    if not names.is_name(endpoint):
        message = f"there is no endpoint {endpoint[:80]!r}"
        raise NotFoundError(message, hint="Endpoint.list() names those that there are")
    if revision is not None and not names.is_name(revision):
        message = f"endpoint {endpoint!r} has no revision {revision[:80]!r}"
        raise NotFoundError(message)
    headers = binary_type.folded(payload.headers)
    found = {member: headers[name] for name, member in _MEMBERS.items() if headers.get(name)}
    for member, value in found.items():
        _check_header(member, value)
    pin = {"TargetVariant": revision} if revision is not None else {}
    return {"EndpointName": endpoint, "Body": bytes(payload.body), **found, **pin}


def _check_header(member: str, value: str) -> None:
    most = _MOST_CHARS.get(member, 1024)
    if len(value) > most or not _PLAIN.fullmatch(value):
        message = f"{member} of the request has {len(value)} characters: {value[:80]!r}"
        raise InvalidRequestError(
            message, field=member, hint=f"at most {most} printable ASCII characters are passed on"
        )


def read_timeout(timeout: float) -> int:
    """Give the whole seconds to wait on the line: few different ones, for each has a client of its own."""
    if timeout > _LONGEST_S / 2:
        return max(_LONGEST_S, round(timeout))
    seconds = 1
    while seconds < timeout:
        seconds *= 2
    return seconds
