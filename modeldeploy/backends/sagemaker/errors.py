"""One table: what AWS says, by code and message, to an error of ours.

"Not found" and "exists already" of SageMaker are plain ValidationExceptions, so the code alone says little. The rule with both a code and
a message wins over the one with a code only; the provider's own error is the cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
    MissingDependencyError,
    ModelDeployError,
    NotFoundError,
    PredictionError,
    QuotaError,
    ThrottledError,
    UnavailableError,
)

Context = Mapping[str, str | float]


class BusyError(UnavailableError):
    """A change of the endpoint is under way and the service takes no other one; look again later."""


class AlreadyThereError(ConflictError):
    """There is something of this name; whether it is ours is to be looked at."""


@attrs.frozen
class Rule:
    """A line of the table: an error with one of these codes and a message like this is of this class."""

    cls: type[ModelDeployError]
    codes: tuple[str, ...] = ()
    message: str = ""
    hint: str = ""

    @property
    def rank(self) -> int:
        """How specific it is."""
        return 2 * bool(self.message) + bool(self.codes)

    def fits(self, code: str, message: str) -> bool:
        """Whether it is about this error."""
        return (not self.codes or code in self.codes) and re.search(self.message, message, re.IGNORECASE) is not None


_VALIDATION = ("ValidationException", "ValidationError")
_ACCESS = "the caller's identity or the execution role lacks a permission; docs/backends/sagemaker.md has the policy"
_KEYS = "log in again, or name another profile: SageMaker(profile=...)"
_QUOTA = "ask for a higher quota (Service Quotas, 'for endpoint usage'), or name another instance type"

TABLE = (
    Rule(NotFoundError, _VALIDATION, r"could not find|does not exist|not found"),
    Rule(AlreadyThereError, _VALIDATION, r"already exist"),
    Rule(BusyError, _VALIDATION, r"in-progress|in progress|is being|currently (?:in|updating|creating|deleting)"),
    Rule(InvalidRequestError, _VALIDATION),
    Rule(NotFoundError, ("ResourceNotFound", "ResourceNotFoundException", "ObjectNotFoundException", "NoSuchKey", "NoSuchBucket", "404")),
    Rule(AlreadyThereError, ("ResourceInUse", "ResourceInUseException", "ConflictException")),
    Rule(QuotaError, ("ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException"), hint=_QUOTA),
    Rule(
        ThrottledError,
        ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"),
    ),
    Rule(UnavailableError, ("InternalFailure", "InternalServerError", "InternalError", "ServiceUnavailable", "503", "500")),
    Rule(UnavailableError, ("ModelNotReadyException", "InternalDependencyException", "InternalServiceFault")),
    Rule(UnavailableError, ("InternalStreamFailure", "RequestTimeout", "RequestTimeoutException")),
    Rule(AccessDeniedError, ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"), hint=_ACCESS),
    Rule(CredentialsError, ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"), hint=_KEYS),
    Rule(
        CredentialsError,
        ("InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidClientTokenId"),
        hint=_KEYS,
    ),
    Rule(CredentialsError, ("InvalidAccessKeyId", "MissingAuthenticationToken", "IncompleteSignature"), hint=_KEYS),
    Rule(ThrottledError, (), r"rate exceeded"),
)  # fmt: skip
_BY_RANK = sorted(TABLE, key=lambda rule: -rule.rank)
_TIMED_OUT, _CALLERS, _MODELS = 504, 400, 500
_TOO_MANY, _UNAVAILABLE = 429, 503


def rule_of(code: str, message: str) -> Rule:
    """Find the most specific line for an error."""
    return next((rule for rule in _BY_RANK if rule.fits(code, message)), Rule(BackendError))


def translated(**context: str | float) -> AbstractContextManager[None]:
    """Let only errors of ours out; what the provider or its library raised is their cause."""
    return translating.translated(of_error, context)


def of_error(error: Exception, context: Context) -> ModelDeployError | None:
    """Translate an error of botocore; None when it is not one."""
    import botocore.exceptions as native

    if isinstance(error, native.ClientError):
        return of_answer(error.response, error.operation_name, context)
    for kinds, cls, text, hint in _NATIVE:
        if isinstance(error, tuple(getattr(native, kind) for kind in kinds)):
            return cls(f"{text}{error}", hint=hint or None, context=context)
    return BackendError(f"AWS: {error}", context=context) if isinstance(error, native.BotoCoreError) else None


_NATIVE: tuple[tuple[tuple[str, ...], type[ModelDeployError], str, str], ...] = (
    (("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"), CredentialsError, "no AWS credentials: ", _KEYS),
    (("TokenRetrievalError", "SSOError"), CredentialsError, "the login has ended: ", _KEYS),
    (("ProfileNotFound", "NoRegionError", "InvalidRegionError"), ConfigurationError, "", "pass profile= or region="),
    (("ParamValidationError", "UnknownParameterError"), InvalidRequestError, "the request cannot be sent: ", ""),
    (("HTTPClientError", "IncompleteReadError", "EndpointConnectionError"), UnavailableError, "AWS was not reached: ", ""),
    (("MissingDependencyException",), MissingDependencyError, "", ""),
)  # fmt: skip
"""What botocore raises before or without an answer."""


def of_answer(answer: Mapping[str, Any], operation: str, context: Context) -> ModelDeployError:
    """Translate an error that the service answered with."""
    said = answer.get("Error", {})
    code, meta = str(said.get("Code", "")), answer.get("ResponseMetadata", {})
    # The runtime's throttling has no message at all.
    text = str(said.get("Message") or said.get("message") or answer.get("Message") or "")
    if code == "ModelError":
        return of_model(answer, context)
    rule = rule_of(code, text)
    about = {**context, **({"request": meta["RequestId"]} if meta.get("RequestId") else {})}
    message = f"{operation}: {text or 'no message'} ({code})"
    waits = _seconds(meta.get("HTTPHeaders", {}))
    if issubclass(rule.cls, ThrottledError | UnavailableError):
        return rule.cls(message, retry_after=waits, hint=rule.hint or None, context=about)
    return rule.cls(message, hint=rule.hint or None, context=about)


def of_model(answer: Mapping[str, Any], context: Context) -> ModelDeployError:
    """Translate what the container answered: a 4xx is the caller's mistake, a 5xx or nothing in time the model's failure."""
    status = int(answer.get("OriginalStatusCode") or _TIMED_OUT)
    body = str(answer.get("OriginalMessage") or answer.get("Message") or "")
    said = _document(body)
    if answer.get("LogStreamArn"):
        context = {**context, "stream": str(answer["LogStreamArn"])}
    message = f"endpoint {context.get('endpoint')!r} answered {status}: {said.get('error') or body[:200] or 'nothing in time'}"
    if status in {_TOO_MANY, _UNAVAILABLE}:
        return (ThrottledError if status == _TOO_MANY else UnavailableError)(message, context=context)
    if _CALLERS <= status < _MODELS:
        return InvalidRequestError(message, field=said.get("field"), context=context)
    return PredictionError(message, status=status, body=body, context=context)


def _document(body: str) -> Mapping[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _seconds(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
