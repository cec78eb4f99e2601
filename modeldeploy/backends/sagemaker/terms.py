"""How batch jobs are done, whatever the job: on what machines, in what portions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError

_MOST_MB = 100


@attrs.frozen
class Terms:
    """How Batch Transform is used; ConfigurationError for what the service refuses."""

    instance_type: str = ""
    """Such as ``ml.m5.large``; the backend's own when empty. Batch Transform takes fewer types than endpoints do."""
    parts_per_job: int = 16
    """Parts that one transform job scores: fewer lose less when it is stopped, more start fewer machines."""
    rows_per_part: int = 65_536
    """Rows in a part, which is one object in the bucket."""
    max_payload_mb: int = 6
    """The most that one request to the container holds, 1 to 100."""
    concurrency: int = 4
    """Requests to one container at the same time; times ``max_payload_mb`` at most 100."""
    timeout: int = 3600
    """Seconds that one request may take, 1 to 3600."""

    def __attrs_post_init__(self) -> None:
        for name, most in (("max_payload_mb", _MOST_MB), ("concurrency", _MOST_MB), ("timeout", 3600)):
            _check(name, getattr(self, name), most)
        for name in ("parts_per_job", "rows_per_part"):
            _check(name, getattr(self, name), 1 << 31)
        if self.concurrency * self.max_payload_mb > _MOST_MB:
            message = f"max_payload_mb is {self.max_payload_mb} and concurrency {self.concurrency}"
            raise ConfigurationError(message, hint=f"the two multiplied must be {_MOST_MB} at most")

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Make them of text; ConfigurationError names the one that is wrong."""
        read: dict[str, Any] = {
            name: value if name == "instance_type" else _number(name, value) for name, value in given.items()
        }
        return cls(**read)


TERMS = tuple(field.name for field in attrs.fields(Terms))


def _check(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        message = f"{name} is {value!r}"
        raise ConfigurationError(message, hint=f"use a whole number from 1 to {most:,}")


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        message = f"setting batch_{name} is {text!r}"
        raise ConfigurationError(message, hint="use a whole number") from error
