"""How the service says no."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs


@attrs.frozen
class Detail:
    """One of the errors that lie inside of another."""

    code: str
    message: str

    def body(self) -> dict[str, Any]:
        """Write it as the answers have it."""
        return {"code": self.code, "message": self.message, "details": [], "additionalInfo": []}


class ServiceError(Exception):
    """An answer that is an error: HTTP status, code, text, what lies inside of it, and headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Iterable[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = tuple(details)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Write the error object that answers and failed operations carry."""
        return {
            "code": self.code,
            "message": self.message,
            "details": [each.body() for each in self.details],
            "additionalInfo": [],
        }


class LostAnswerError(ConnectionError):
    """The connection is to be cut off without an answer."""


def bad_request(message: str, code: str = "BadArgument") -> ServiceError:
    """Make the error of a request that cannot be; what is wrong stands in the details, as the recorded forms have it."""
    return ServiceError(400, "BadRequest", "The request is invalid.", details=[Detail(code, message)])


def not_found(message: str) -> ServiceError:
    """Make the error of a thing that is not there."""
    return ServiceError(404, "NotFound", message)


def conflict(message: str) -> ServiceError:
    """Make the error of a request that comes while another is being carried out."""
    return ServiceError(409, "Conflict", message)


def not_simulated(what: str) -> ServiceError:
    """Make the refusal of something that the service has and the rehearsal has not."""
    return ServiceError(501, "NotSimulated", f"The rehearsal of Azure ML does not simulate {what}.")
