"""How batch jobs are done, whatever the job: on what machines, in what portions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError


@attrs.frozen
class Terms:
    """How batch endpoints are used."""

    compute: str = ""
    """Name of the workspace's compute cluster that jobs run on; there is no default."""
    parts_per_job: int = 16
    """Parts that one job of the service scores: fewer lose less when it is stopped, more start fewer machines."""
    rows_per_part: int = 65_536
    """Rows in a part, which is one file and one mini-batch."""
    max_payload_mb: int = 64
    """The most that a row may have, in megabytes."""
    concurrency: int = 2
    """Mini-batches that one machine works on at a time."""
    timeout: int = 3600
    """Seconds that a mini-batch may take."""
    retries: int = 2
    """How often a mini-batch that fails is tried again."""

    def __attrs_post_init__(self) -> None:
        for name in ("parts_per_job", "rows_per_part", "max_payload_mb", "concurrency", "timeout"):
            _check(name, getattr(self, name), 1)
        _check("retries", self.retries, 0)

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Make them of text; ConfigurationError names the one that is wrong."""
        read: dict[str, Any] = {
            name: value if name == "compute" else _number(name, value) for name, value in given.items()
        }
        return cls(**read)


TERMS = tuple(field.name for field in attrs.fields(Terms))


def _check(name: str, value: int, least: int) -> None:
    if value < least:
        message = f"{name} is {value!r}"
        raise ConfigurationError(message, hint=f"use a whole number, {least} or more")


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        message = f"setting batch_{name} is {text!r}"
        raise ConfigurationError(message, hint="use a whole number") from error
