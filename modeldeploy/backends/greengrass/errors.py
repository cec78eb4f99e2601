"""One table: what AWS says, by code, to an error of ours; the provider's own error is the cause."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

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
    QuotaError,
    ThrottledError,
    UnavailableError,
)

Context = Mapping[str, str | float]


class AlreadyThereError(ConflictError):
    """There is something of this name; whether it is ours is to be looked at."""


class ChangedError(ConflictError):
    """Somebody changed it since it was read."""


@attrs.frozen
class Rule:
    """A line of the table."""

    cls: type[ModelDeployError]
    codes: tuple[str, ...]
    hint: str = ""


_ACCESS = "the caller's identity lacks a permission; docs/backends/greengrass.md has the policy"
_KEYS = "log in again, or name another profile: Greengrass(profile=...)"
_QUOTA = "ask for a higher quota (Service Quotas)"

TABLE = (
    Rule(NotFoundError, ("ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "NoSuchUpload", "404")),
    Rule(AlreadyThereError, ("ConflictException", "ResourceAlreadyExistsException")),
    Rule(ChangedError, ("VersionConflictException", "ConflictingResourceUpdateException"), "observe it again and decide anew"),
    Rule(QuotaError, ("ServiceQuotaExceededException", "LimitExceededException"), _QUOTA),
    Rule(ThrottledError, ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown")),
    Rule(UnavailableError, ("InternalServerException", "InternalFailureException", "InternalException", "InternalError", "ServiceUnavailableException", "ServiceUnavailable", "503", "500")),
    Rule(AccessDeniedError, ("AccessDenied", "AccessDeniedException", "UnauthorizedException", "403"), _ACCESS),
    Rule(CredentialsError, ("ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"), _KEYS),
    Rule(CredentialsError, ("InvalidSignatureException", "SignatureDoesNotMatch", "InvalidAccessKeyId", "MissingAuthenticationTokenException"), _KEYS),
    Rule(InvalidRequestError, ("ValidationException", "InvalidRequestException", "RequestAlreadyInProgressException")),
)  # fmt: skip

_NATIVE: tuple[tuple[tuple[str, ...], type[ModelDeployError], str, str], ...] = (
    (("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"), CredentialsError, "no AWS credentials: ", _KEYS),
    (("TokenRetrievalError", "SSOError"), CredentialsError, "the login has ended: ", _KEYS),
    (("ProfileNotFound", "NoRegionError", "InvalidRegionError"), ConfigurationError, "", "pass profile= or region="),
    (("ParamValidationError", "UnknownParameterError"), InvalidRequestError, "the request cannot be sent: ", ""),
    (("HTTPClientError", "IncompleteReadError", "EndpointConnectionError"), UnavailableError, "AWS was not reached: ", ""),
)  # fmt: skip


def translated(**context: str | float) -> AbstractContextManager[None]:
    """Let only errors of ours out; what the provider or its library raised is their cause."""
    return translating.translated(of_error, context)


def of_error(error: Exception, context: Context) -> ModelDeployError | None:
    """Translate an error of botocore; None when it is not one."""
    import botocore.exceptions as native

    if isinstance(error, native.ClientError):
        return _of_answer(error, context)
    for kinds, cls, text, hint in _NATIVE:
        if isinstance(error, tuple(getattr(native, kind) for kind in kinds)):
            return cls(f"{text}{error}", hint=hint or None, context=context)
    return BackendError(f"AWS: {error}", context=context) if isinstance(error, native.BotoCoreError) else None


def _of_answer(error: object, context: Context) -> ModelDeployError:
    response, operation = getattr(error, "response", {}), getattr(error, "operation_name", "")
    said = response.get("Error", {})
    code, text = str(said.get("Code", "")), str(said.get("Message", ""))
    rule = next((each for each in TABLE if code in each.codes), Rule(BackendError, ()))
    return rule.cls(f"{operation}: {text or 'no reason given'} ({code})", hint=rule.hint or None, context=context)
