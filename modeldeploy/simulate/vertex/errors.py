"""What callers are told when something is wrong, as the service says it."""

from __future__ import annotations

from typing import Any

_PREDICTION_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ServiceError(Exception):
    """An answer that is an error; ``code`` is the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def status(self) -> Any:
        """Give it as the ``google.rpc.Status`` of an operation or a job."""
        from google.rpc import code_pb2, status_pb2

        return status_pb2.Status(code=code_pb2.Code.Value(self.code), message=self.message)


def invalid(message: str) -> ServiceError:
    """Refuse a request that can never be right."""
    return ServiceError("INVALID_ARGUMENT", message)


def precondition(message: str) -> ServiceError:
    """Refuse a request that is not right now."""
    return ServiceError("FAILED_PRECONDITION", message)


def not_found(kind: str, name: str) -> ServiceError:
    """Say that there is no such thing."""
    return ServiceError("NOT_FOUND", f"The {kind} does not exist: {name}")


def exists(kind: str, name: str) -> ServiceError:
    """Say that the name is taken."""
    return ServiceError("ALREADY_EXISTS", f"{kind} {name} already exists.")


def exceeded(quota: str) -> ServiceError:
    """Say which quota has nothing left."""
    return ServiceError("RESOURCE_EXHAUSTED", f"The following quotas are exceeded: {quota}")


def from_container(status: int, body: bytes) -> ServiceError:
    """Make the error that a container's own error is for a caller; its text is passed on."""
    code = _PREDICTION_CODES.get(status, "INTERNAL" if status >= 500 else "FAILED_PRECONDITION")  # noqa: PLR2004
    return ServiceError(code, body[:4_096].decode("utf-8", "replace"))
