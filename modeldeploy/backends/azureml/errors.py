"""One table: what Azure says, by status, codes and message, to an error of ours.

The status alone says little: an operation that failed answers with 200, a quota is a BadRequest whose details hold the reason, and some
errors bear their name only at the beginning of their message. So every code of an answer counts, the nested ones too. The rule that says
most wins; the provider's own error is the cause.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import attrs

from modeldeploy.backends.cloud import translating
from modeldeploy.errors import (
    AccessDeniedError,
    BackendError,
    ConfigurationError,
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

Context = Mapping[str, str | int | float]


class BusyError(UnavailableError):
    """A change of the endpoint is under way, or its name is not free yet, and the service takes no other one; look again later."""


@attrs.frozen
class Said:
    """What Azure said, whatever the form: all its codes, the outermost first, and the messages in the same order."""

    status: int = 0
    codes: tuple[str, ...] = ()
    message: str = ""

    @property
    def code(self) -> str:
        """The most specific code: the innermost one."""
        return self.codes[-1] if self.codes else ""


@attrs.frozen
class Rule:
    """A line of the table: an error with one of these codes or statuses and a message like this is of this class."""

    cls: type[ModelDeployError]
    codes: tuple[str, ...] = ()
    message: str = ""
    status: tuple[int, ...] = ()
    hint: str = ""

    @property
    def rank(self) -> int:
        """How specific it is: what the message says, then the code, then the status."""
        return 4 * bool(self.message) + 2 * bool(self.codes) + bool(self.status)

    def fits(self, said: Said) -> bool:
        """Whether it is about this error."""
        coded = not self.codes or any(code in self.codes for code in said.codes)
        there = not self.status or said.status in self.status
        return coded and there and re.search(self.message, said.message, re.IGNORECASE) is not None


_ACCESS = "the identity lacks a permission, or was given it a moment ago; docs/backends/azureml.md has the roles"
_LOGIN = "log in (az login), or pass credential= of azure-identity"
_QUOTA = "ask for more quota in the region (Azure portal, Quotas), or name another size: options=AzureMLOptions(instance_type=...)"
_OURS = "read its log: Endpoint.logs()"

TABLE = (
    Rule(QuotaError, (), r"not enough quota|outofquota|quota (?:is )?exceeded", hint=_QUOTA),
    Rule(QuotaError, (), r"outofcapacity|no capacity|insufficient capacity", hint="try later, or another size or region"),
    Rule(QuotaError, ("OutOfQuota", "QuotaExceeded"), hint=_QUOTA),
    Rule(QuotaError, ("OutOfCapacity",), hint="try later, or another size or region"),
    Rule(BusyError, (), r"because it is in \w+ provisioning state|another operation|already in progress|is being (?:updated|deleted)"),
    Rule(BusyError, (), r"there is already an endpoint with this name"),
    Rule(BusyError, ("OperationCanceled", "Conflict"), status=(409,)),
    Rule(BusyError, ("OperationCanceled",)),
    Rule(ConflictError, status=(409, 412)),
    Rule(ThrottledError, ("TooManyRequests", "TooManyRequestsException", "SubscriptionRequestsThrottled")),
    Rule(ThrottledError, status=(429,)),
    Rule(UnavailableError, ("InternalServerError", "ServiceUnavailable", "ServerTimeout", "GatewayTimeout")),
    Rule(UnavailableError, status=(408, 500, 502, 503, 504)),
    Rule(NotFoundError, ("ResourceNotFound", "NotFound", "ResourceGroupNotFound", "UserError.NotFound")),
    Rule(NotFoundError, status=(404,)),
    Rule(AccessDeniedError, ("AuthorizationFailed", "Forbidden", "LinkedAuthorizationFailed"), hint=_ACCESS),
    Rule(AccessDeniedError, status=(403,), hint=_ACCESS),
    Rule(CredentialsError, ("InvalidAuthenticationToken", "ExpiredAuthenticationToken", "AuthenticationFailed"), hint=_LOGIN),
    Rule(CredentialsError, status=(401,), hint=_LOGIN),
    Rule(BackendError, ("ResourceNotReady", "ImageBuildFailure", "BadArgument", "SecretsInjectionError"), hint=_OURS),
    Rule(BackendError, ("WorkspaceManagedNetworkNotReady",), hint="provision the workspace's managed network first"),
    Rule(InvalidRequestError, status=(400, 413, 422)),
)  # fmt: skip
_BY_RANK = sorted(TABLE, key=lambda rule: -rule.rank)
_PREFIX = re.compile(r"(?P<code>[A-Z][A-Za-z]{5,60})\s*:")
_USAGE = re.compile(
    r"quota available for (?P<quota>\S+?)\b[^/]*?Current usage/limit:\s*(?P<usage>\d+)\s*/\s*(?P<limit>\d+)"
    r"\.?(?:\s*Additional needed:\s*(?P<needed>\d+))?",
    re.IGNORECASE,
)


def rule_of(said: Said) -> Rule:
    """Find the most specific line for an error."""
    return next((rule for rule in _BY_RANK if rule.fits(said)), Rule(BackendError))


def translated(**context: str | float) -> AbstractContextManager[None]:
    """Let only errors of ours out; what the provider or its library raised is their cause."""
    return translating.translated(of_error, context)


def of_error(error: Exception, context: Context) -> ModelDeployError | None:
    """Translate an error of azure-core or azure-ai-ml; None when it is not one."""
    from azure.ai.ml.exceptions import MlException
    from azure.core import exceptions as native

    if isinstance(error, native.ClientAuthenticationError) and error.response is None:
        return CredentialsError(f"Azure does not know who asks: {_first_line(error)}", hint=_LOGIN, context=context)
    if isinstance(error, native.HttpResponseError):
        return of_answer(said_by(error), context, retry_after=_retry_after(error))
    # Before the next one, of which it is a kind.
    if isinstance(error, MlException):
        return _of_library(error, context)
    if isinstance(error, native.AzureError):
        return UnavailableError(f"Azure was not reached: {_first_line(error)}", context=context)
    return None


def _of_library(error: Any, context: Context) -> ModelDeployError:
    """Translate what azure-ai-ml raises before it sends anything, or around what it was answered."""
    cause = error.inner_exception if isinstance(getattr(error, "inner_exception", None), Exception) else error.__cause__
    found = of_error(cause, context) if isinstance(cause, Exception) else None
    return found or ConfigurationError(f"azure-ai-ml refuses it: {_first_line(error)}", context=context)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:400] if lines else type(error).__name__


def said_by(error: Any) -> Said:
    """Read an error of azure-core: the document of its answer, or what it says itself."""
    status = int(error.status_code or 0)
    document = _document(error)
    if document:
        return said(document, status)
    inner = getattr(error, "error", None)
    codes = tuple(filter(None, [getattr(inner, "code", None)]))
    return Said(status, codes, str(getattr(inner, "message", None) or error.message or ""))


def _document(error: Any) -> Mapping[str, Any]:
    try:
        data = json.loads(error.response.text())
    except (AttributeError, ValueError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def said(document: Mapping[str, Any], status: int = 0) -> Said:
    """Read the document of an error, with all that is nested in it: details, JSON within a message, a name before a colon."""
    found = list(_walk(document.get("error", document)))
    codes = tuple(code for code, _message in found if code)
    message = "; ".join(dict.fromkeys(message for _code, message in found if message))
    # Some errors bear no code, or one that says nothing, and their name before the first colon.
    named = tuple(match["code"] for match in _PREFIX.finditer(message[:200]) if match["code"] in _NAMED)
    return Said(status, (*codes, *(code for code in named if code not in codes)), message)


_NAMED = frozenset(code for rule in TABLE for code in rule.codes)


def _walk(error: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(error, Mapping):
        return
    message = str(error.get("message") or "")
    inside = _inside(message)
    yield str(error.get("code") or ""), inside or message
    for each in error.get("details") or ():
        yield from _walk(each)


def _inside(message: str) -> str:
    """Read the ``{"errors": {"VmSize": ["..."]}}`` that a message may hold; empty when it holds none."""
    start = message.find('{"errors"')
    if start < 0:
        return ""
    try:
        data, _end = json.JSONDecoder().raw_decode(message[start:])
    except ValueError:
        return ""
    errors = data.get("errors")
    if not isinstance(errors, Mapping):
        return ""
    return "; ".join(
        f"{field}: {text}"
        for field, texts in errors.items()
        for text in (texts if isinstance(texts, list) else [texts])
    )


def of_answer(answer: Said, context: Context, *, retry_after: float | None = None) -> ModelDeployError:
    """Make our error of what Azure said."""
    rule = rule_of(answer)
    about = {**context, **_quota(answer.message)}
    code = answer.code or answer.status
    message = f"{answer.message or 'Azure gives no reason'} ({code})"
    if issubclass(rule.cls, ThrottledError | UnavailableError):
        return rule.cls(message, retry_after=retry_after, hint=rule.hint or None, context=about)
    return rule.cls(message, hint=rule.hint or None, context=about)


def _quota(message: str) -> dict[str, str | int | float]:
    """Read which quota is used up, and how far."""
    match = _USAGE.search(message)
    if match is None:
        return {}
    numbers = {key: int(match[key]) for key in ("usage", "limit", "needed") if match[key]}
    return {"quota": match["quota"], **numbers}


def _retry_after(error: Any) -> float | None:
    headers = getattr(error.response, "headers", None) or {}
    return seconds(headers)


def seconds(headers: Mapping[str, str]) -> float | None:
    """Read how long to wait, from either header that Azure writes it in."""
    lower = {name.lower(): value for name, value in headers.items()}
    with contextlib.suppress(ValueError):
        if "retry-after-ms" in lower:
            return float(lower["retry-after-ms"]) / 1000
        if "retry-after" in lower:
            return float(lower["retry-after"])
    return None


# Answers of the scoring address

_MODEL_STATUS = "ms-azureml-model-error-statuscode"
_MODEL_FAILED, _TOO_MANY = 424, 429
_UNAVAILABLE = frozenset({500, 502, 503, 504})


def of_scoring(status: int, headers: Mapping[str, str], body: bytes, context: Context) -> ModelDeployError:
    """Translate an answer of the scoring address that is no 200: 424 tells what the model's own server said."""
    text = body.decode("utf-8", "replace")
    told = _told(text)
    own = headers.get(_MODEL_STATUS, "")
    inner = int(own) if own.isdecimal() else 0
    message = f"endpoint {context.get('endpoint')!r} answered {inner or status}: {told.get('error') or text[:200] or 'nothing'}"
    if status == _MODEL_FAILED:
        return _of_model(inner, message, text, told, context)
    if status == _TOO_MANY:
        return ThrottledError(message, retry_after=seconds(headers), context=context)
    if status in _UNAVAILABLE:
        return UnavailableError(message, retry_after=seconds(headers), context=context)
    if status == 408:  # noqa: PLR2004 - request timeout, of the deployment's request settings
        return PredictionError(
            message, status=status, body=text, context=context, hint="raise request_timeout_s in the options"
        )
    cls = {401: CredentialsError, 403: AccessDeniedError, 404: NotFoundError}.get(status, InvalidRequestError)
    return cls(message, context=context)


def _of_model(status: int, message: str, body: str, told: Mapping[str, Any], context: Context) -> ModelDeployError:
    if status in {_TOO_MANY, 503}:
        return (ThrottledError if status == _TOO_MANY else UnavailableError)(message, context=context)
    if 400 <= status < 500:  # noqa: PLR2004 - the caller's mistake
        return InvalidRequestError(message, field=told.get("field"), context=context)
    return PredictionError(message, status=status or _MODEL_FAILED, body=body, context=context)


def _told(body: str) -> Mapping[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
