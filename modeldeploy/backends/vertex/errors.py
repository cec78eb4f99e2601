"""One table: what Google says, by code and message, to an error of ours.

Three kinds of errors come: of the generated clients and of gRPC itself (a status code's name), of Cloud Storage and the REST services (an HTTP
status), and the ``google.rpc.Status`` that a finished operation holds. All are read into the same words. The rule that says most wins;
the provider's own error is the cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import attrs

from modeldeploy.backends.cloud import translating
from modeldeploy.backends.cloud.translating import Context
from modeldeploy.errors import (
    AccessDeniedError,
    BackendError,
    ConflictError,
    CredentialsError,
    InvalidRequestError,
    ModelDeployError,
    NotFoundError,
    PredictionError,
    QuotaError,
    ThrottledError,
    UnavailableError,
)

LOGIN = "log in: gcloud auth application-default login; or pass credentials= of google-auth"
_ACCESS = "the caller lacks a permission, or was given it a moment ago; docs/backends/vertex.md has the roles"
_QUOTA = "ask for more in the console (IAM & Admin, Quotas), or name another machine: options=VertexOptions(machine_type=...)"
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "UNAVAILABLE",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP statuses in the words of gRPC."""
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip
"""The codes by their numbers, as an operation's error has them."""


class BusyError(UnavailableError):
    """A change of the same thing is under way, or what was read is no longer so, and the service takes no other one; look again."""


class TakenError(ConflictError):
    """The id is taken: by an earlier request of ours whose answer was lost, or by somebody else."""


@attrs.frozen
class Said:
    """What Google said, whatever the form."""

    code: str = ""
    message: str = ""


@attrs.frozen
class Rule:
    """A line of the table: an error with one of these codes and a message like this is of this class."""

    cls: type[ModelDeployError]
    codes: tuple[str, ...] = ()
    message: str = ""
    hint: str = ""

    @property
    def rank(self) -> int:
        """How specific it is: what the message says, then the code."""
        return 2 * bool(self.message) + bool(self.codes)

    def fits(self, said: Said) -> bool:
        """Whether it is about this error."""
        coded = not self.codes or said.code in self.codes
        return coded and re.search(self.message, said.message, re.IGNORECASE) is not None


_LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "DATA_LOSS")
"""The answer is lost or there is none; whatever was asked for may have been done, so each step looks before it asks again."""
TABLE = (
    Rule(QuotaError, ("RESOURCE_EXHAUSTED",), r"quotas? (?:are|is) exceeded", _QUOTA),
    Rule(QuotaError, ("RESOURCE_EXHAUSTED",), r"out of capacity|stock-?out|resources are insufficient|does not have enough resources",
         "try later, or another machine or region"),
    Rule(ThrottledError, ("RESOURCE_EXHAUSTED",)),
    Rule(BusyError, ("ABORTED",)),
    Rule(BusyError, ("FAILED_PRECONDITION",), r"in progress|under way|being (?:created|updated|deleted|deployed|undeployed)|ongoing operation"),
    # It is looked at before it is asked for, so this is what another look will show.
    Rule(BusyError, ("FAILED_PRECONDITION",), r"deployed models"),
    Rule(TakenError, ("ALREADY_EXISTS",)),
    Rule(ConflictError, ("FAILED_PRECONDITION",)),
    # What goes wrong with the token on the way comes as a failure of the connection.
    Rule(CredentialsError, ("UNAVAILABLE",), r"metadata from plugin failed.*(?:invalid_grant|reauthenticat|refresh)", LOGIN),
    Rule(UnavailableError, _LOST),
    Rule(NotFoundError, ("NOT_FOUND",)),
    Rule(AccessDeniedError, ("PERMISSION_DENIED",), hint=_ACCESS),
    Rule(AccessDeniedError, ("PERMISSION_DENIED",), r"has not been used in project|is disabled",
         "gcloud services enable aiplatform.googleapis.com --project PROJECT"),
    Rule(CredentialsError, ("UNAUTHENTICATED",), hint=LOGIN),
    Rule(InvalidRequestError, ("INVALID_ARGUMENT", "OUT_OF_RANGE")),
)  # fmt: skip
_BY_RANK = sorted(TABLE, key=lambda rule: -rule.rank)
_QUOTAS = re.compile(
    r"quotas? (?:are|is) exceeded:?\s*(?P<quota>[\w./-]+)|quota metric '(?P<metric>[^']+)'", re.IGNORECASE
)


def rule_of(said: Said) -> Rule:
    """Find the most specific line for an error."""
    return next((rule for rule in _BY_RANK if rule.fits(said)), Rule(BackendError))


def translated(**context: str | float) -> AbstractContextManager[None]:
    """Let only errors of ours out; what the provider or its library raised is their cause."""
    return translating.translated(of_error, context)


def of_error(error: Exception, context: Context) -> ModelDeployError | None:
    """Translate an error of google-api-core, gRPC, google-auth or requests; None when it is not one."""
    import grpc
    import requests
    from google.api_core import exceptions as native
    from google.auth import exceptions as auth

    if isinstance(error, native.GoogleAPICallError | grpc.RpcError):
        return of_said(said_by(error), context)
    if isinstance(error, auth.TransportError):
        return UnavailableError(f"Google was not reached: {_first_line(error)}", context=context)
    if isinstance(error, auth.GoogleAuthError):
        return CredentialsError(f"Google does not know who asks: {_first_line(error)}", hint=LOGIN, context=context)
    if isinstance(error, native.RetryError | requests.RequestException):
        return UnavailableError(f"Google was not reached: {_first_line(error)}", context=context)
    return None


def said_by(error: Any) -> Said:
    """Read an error of the generated clients, of gRPC itself, or of a REST service."""
    known = getattr(error, "grpc_status_code", None)
    if known is None and callable(getattr(error, "code", None)):
        known = error.code()
    if known is not None:
        details = error.details() if callable(getattr(error, "details", None)) else error.message
        return Said(known.name, str(details or ""))
    return of_status(int(error.code or 0), str(error.message or ""))


def of_status(status: int, message: str) -> Said:
    """Read an HTTP status in the words of gRPC."""
    return Said(_STATUS.get(status, "INTERNAL" if status >= 500 else "UNKNOWN"), message)  # noqa: PLR2004 - the server's own


def of_operation(code: int, message: str) -> Said:
    """Read the ``google.rpc.Status`` of an operation or a job."""
    return Said(CODES[code] if 0 <= code < len(CODES) else "UNKNOWN", message)


def of_said(said: Said, context: Context) -> ModelDeployError:
    """Make our error of what Google said."""
    rule = rule_of(said)
    message = f"{said.message.strip() or 'Google gives no reason'} ({said.code})"
    return rule.cls(message, hint=rule.hint or None, context={**context, **quota(said.message)})


def quota(message: str) -> dict[str, str]:
    """Read which quota is used up."""
    match = _QUOTAS.search(message)
    return {"quota": (match["quota"] or match["metric"]).rstrip(".")} if match else {}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:400] if lines else type(error).__name__


# Answers to predictions: what comes is the container's own answer in the words of gRPC

_CALLER = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"})
_PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "UNKNOWN"})
_NOBODY = re.compile(r"traffic_?\s?split|no deployed models?", re.IGNORECASE)
"""What is said of an endpoint on which nothing takes traffic yet, or any more."""
_BODY = re.compile(r"\{.*\}", re.DOTALL)


def of_prediction(said: Said, context: Context) -> ModelDeployError:
    """Translate what a prediction ended with: INTERNAL is the container's own 5xx, INVALID_ARGUMENT and the like its 4xx."""
    rule, told = rule_of(said), _told(said.message)
    text = str(told.get("error") or said.message.strip()[:400] or "nothing")
    message = f"endpoint {context.get('endpoint')!r} answered {said.code}: {text}"
    if rule.cls is CredentialsError:
        return of_said(said, context)
    if said.code in _PASSING or (not told and _NOBODY.search(said.message)):
        return UnavailableError(message, context=context)
    if said.code in _CALLER:
        field = told.get("field")
        return InvalidRequestError(message, field=field if isinstance(field, str) else None, context=context)
    if said.code == "INTERNAL":
        return PredictionError(message, status=500, body=said.message, context=context)
    if said.code == "RESOURCE_EXHAUSTED":
        return ThrottledError(message, context={**context, **quota(said.message)})
    return rule.cls(message, hint=rule.hint or None, context=context)


def _told(text: str) -> Mapping[str, Any]:
    """Read the document that this library's model server answers with, where the text holds one."""
    match = _BODY.search(text)
    try:
        data = json.loads(match[0]) if match else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
