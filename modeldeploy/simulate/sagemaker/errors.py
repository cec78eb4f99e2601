"""How the service says no."""

from __future__ import annotations

from collections.abc import Mapping

VALIDATION = "ValidationException"


class ServiceError(Exception):
    """An answer that is an error: its code, its text, its HTTP status, and the members beside the message."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, members: Mapping[str, str | int] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = dict(members or {})


def invalid(message: str) -> ServiceError:
    """Make the error of a request that cannot be."""
    return ServiceError(VALIDATION, message)


def not_found(kind: str, arn: str) -> ServiceError:
    """Make the error of a model, a configuration or an endpoint that is not there: no code of its own, only a text."""
    return invalid(f'Could not find {kind} "{arn}".')


def exists(kind: str, arn: str) -> ServiceError:
    """Make the error of a name that is taken."""
    return invalid(f'Cannot create already existing {kind} "{arn}".')


def not_simulated(what: str) -> ServiceError:
    """Make the refusal of something that the service has and the rehearsal has not."""
    return invalid(f"The rehearsal of SageMaker does not simulate {what}.")


class LostAnswerError(ConnectionError):
    """The connection is to be cut off without an answer."""
