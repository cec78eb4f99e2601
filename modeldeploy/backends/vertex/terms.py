"""How batch jobs are done, whatever the job: on what machines, in what portions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError


@attrs.frozen
class Terms:
    """How batch prediction jobs are used."""

    machine_type: str = ""
    """Left out, it is the backend's."""
    accelerator: str = ""
    """Such as ``NVIDIA_TESLA_T4``, one on each machine."""
    parts_per_job: int = 16
    """Parts that one job of the service scores: fewer lose less when it is stopped, more start fewer machines."""
    rows_per_part: int = 65_536
    """Rows in a part, which is one file."""
    max_payload_mb: int = 1
    """The most that a row may have, in megabytes."""
    rows_per_request: int = 512
    """Rows that the service sends to a container at a time; its own default of 64 suits models that take long for each."""

    def __attrs_post_init__(self) -> None:
        for name in ("parts_per_job", "rows_per_part", "max_payload_mb", "rows_per_request"):
            if getattr(self, name) < 1:
                message = f"{name} is {getattr(self, name)!r}"
                raise ConfigurationError(message, hint="use a whole number, 1 or more")

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Make them of text; ConfigurationError names the one that is wrong."""
        read: dict[str, Any] = {
            name: value if name in _TEXTS else _number(name, value) for name, value in given.items()
        }
        return cls(**read)


_TEXTS = ("machine_type", "accelerator")
TERMS = tuple(field.name for field in attrs.fields(Terms))


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        message = f"setting batch_{name} is {text!r}"
        raise ConfigurationError(message, hint="use a whole number") from error
