"""Lines of JSON between the backend and the supervisor, errors included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from modeldeploy import errors

LINE_LIMIT = 64 << 20


def encode(message: Mapping[str, Any]) -> bytes:
    """Make one line."""
    return orjson.dumps(message) + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Read one line."""
    message: dict[str, Any] = orjson.loads(line)
    return message


def from_error(error: errors.ModelDeployError) -> dict[str, Any]:
    """Describe an error of ours."""
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint, "context": error.context}


def to_error(data: Mapping[str, Any]) -> errors.ModelDeployError:
    """Make the error again that the supervisor described; one of a class unknown here becomes a BackendError."""
    cls = getattr(errors, str(data.get("type")), None)
    if not (isinstance(cls, type) and issubclass(cls, errors.ModelDeployError)):
        cls = errors.BackendError
    return cls(str(data.get("message")), hint=data.get("hint"), context=data.get("context"))
