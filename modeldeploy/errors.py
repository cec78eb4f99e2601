"""Every exception this library raises.

::

    ModelDeployError                        .message .hint .context   transient = False
    ├── ConfigurationError (ValueError)     refused here, before anything was sent
    │   ├── UnknownBackendError (LookupError)
    │   └── MissingDependencyError (ImportError)
    ├── CredentialsError
    ├── UnsupportedError (NotImplementedError)   .capability
    │   └── BackendRetiredError             the provider ended this service; .replacement
    ├── ConversionError                     a model cannot be turned into another format
    │   └── ConversionParityError           .report; the converted model does not answer as the original
    ├── IntegrityError                      bytes that are not what they claim to be, or are not trusted
    ├── BackendError                        the provider refused or failed; its own error is __cause__
    │   ├── InvalidRequestError (ValueError)     .field; the request is wrong, whoever noticed it first
    │   ├── NotFoundError (LookupError)
    │   ├── ConflictError
    │   │   └── FencedError                 another driver took the operation over
    │   ├── AccessDeniedError (PermissionError)
    │   ├── QuotaError
    │   ├── ThrottledError                  transient; .retry_after
    │   └── UnavailableError                transient; .retry_after
    ├── OperationError
    │   ├── OperationFailed
    │   ├── OperationTimeout (TimeoutError)      patience ended; the work goes on
    │   └── OperationCancelled
    ├── RolloutAborted                      .verdict .traffic
    └── PredictionError                     the model's own failure: .status .body

Each names the thing and the remedy, and each pickles, so that process pools and notebook clusters can carry them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

# A body longer than this says nothing more to a reader and may hold data that does not belong in a log.
BODY_LIMIT = 2_000


class ModelDeployError(Exception):
    """Base of every error raised by this library.

    ``hint`` says what to do next; ``context`` holds identifiers (backend, endpoint, operation, request id), never payloads or secrets.
    """

    transient: ClassVar[bool] = False
    """Whether the same call may succeed when it is simply repeated; the one thing that the retry policy looks at."""

    def __init__(
        self, message: str, *, hint: str | None = None, context: Mapping[str, str | int | float] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = dict(context or {})

    def __str__(self) -> str:
        where = ", ".join(f"{key}={value!r}" for key, value in self.context.items())
        text = f"{self.message} [{where}]" if where else self.message
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not unpickle by themselves.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[ModelDeployError], args: tuple[object, ...], state: dict[str, Any]) -> ModelDeployError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(ModelDeployError, ValueError):
    """An argument, setting or file is wrong; nothing was sent."""


class UnknownBackendError(ConfigurationError, LookupError):
    """No backend has this name."""


class MissingDependencyError(ConfigurationError, ImportError):
    """A package that this feature needs is not installed; the message holds the exact pip command."""


class CredentialsError(ModelDeployError):
    """The provider does not know us, or no credentials were found."""


class UnsupportedError(ModelDeployError, NotImplementedError):
    """The backend cannot do this; refused before anything was sent, with the reason and the alternative."""

    def __init__(
        self,
        message: str,
        *,
        capability: str = "",
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.capability = capability


class BackendRetiredError(UnsupportedError):
    """The provider has ended this service; ``replacement`` is what to use instead, and the hint says how."""

    def __init__(
        self,
        message: str,
        *,
        replacement: str = "",
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, capability="edge", hint=hint, context=context)
        self.replacement = replacement


class ConversionError(ModelDeployError):
    """A model cannot be turned into another format; nothing was packaged."""


class ConversionParityError(ConversionError):
    """The converted model does not answer as the original did; ``report`` is the ParityReport, and nothing was packaged."""

    def __init__(
        self,
        message: str,
        *,
        report: Any = None,
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.report = report


class IntegrityError(ModelDeployError):
    """Bytes differ from their recorded digest, or hold code that nobody on this machine vouched for."""


class BackendError(ModelDeployError):
    """The provider refused the call or failed in it; its native error is ``__cause__``."""


class InvalidRequestError(BackendError, ValueError):
    """The request is wrong: refused here before it was sent, or by the server that received it."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.field = field


class NotFoundError(BackendError, LookupError):
    """There is no such thing at the provider."""


class ConflictError(BackendError):
    """Something else is there under this name, or somebody else changed it first."""


class FencedError(ConflictError):
    """Another driver took this operation over, or it was superseded; this driver must stop at once."""


class AccessDeniedError(BackendError, PermissionError):
    """The provider knows us and says no."""


class QuotaError(BackendError):
    """A limit of the account or of this machine is reached; repeating does not help."""


class _RetryLaterError(BackendError):
    transient = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.retry_after = retry_after


class ThrottledError(_RetryLaterError):
    """Too many requests; ``retry_after`` seconds is what the provider asked for, if it did."""


class UnavailableError(_RetryLaterError):
    """The provider did not answer or says that it cannot now."""


class OperationError(ModelDeployError):
    """A long-running operation did not reach its end."""


class OperationFailed(OperationError):  # noqa: N818 - the field's word for the state
    """The operation ended in failure; what the provider said is in the message."""


class OperationTimeout(OperationError, TimeoutError):  # noqa: N818
    """The caller's patience ended; the operation itself goes on and can be taken up again by its id."""


class OperationCancelled(OperationError):  # noqa: N818
    """The operation was cancelled by request."""


class RolloutAborted(ModelDeployError):  # noqa: N818
    """A rollout went back to stable: ``verdict`` is why, ``traffic`` is ``{revision: percent}`` as it stands now."""

    def __init__(
        self,
        message: str,
        *,
        verdict: str = "",
        traffic: Mapping[str, int] | None = None,
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.verdict = verdict
        self.traffic = dict(traffic or {})


class PredictionError(ModelDeployError):
    """The model itself failed on a well-formed request; ``body`` is what the server said, capped."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        body: str = "",
        hint: str | None = None,
        context: Mapping[str, str | int | float] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.status = status
        self.body = body[:BODY_LIMIT]
