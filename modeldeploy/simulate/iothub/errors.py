"""How the service says no."""

from __future__ import annotations

from collections.abc import Mapping


class ServiceError(Exception):
    """An answer that is an error: its HTTP status, its code, its text."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def document(self) -> dict[str, str]:
        """Write it as IoT Hub does: the code within the message."""
        return {"Message": f"ErrorCode:{self.code};{self.message}", "ExceptionMessage": "Tracking ID:rehearsal"}


def not_found(what: str, name: str) -> ServiceError:
    """Make the error of a thing that is not there."""
    return ServiceError(404, f"{what}NotFound", f"{what} {name} is not registered.")


class LostAnswerError(ConnectionError):
    """The connection is to be cut off without an answer."""
