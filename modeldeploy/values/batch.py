"""A table to be scored in bulk."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.model import ModelVersion
from modeldeploy.values.names import check_name
from modeldeploy.values.ticket import Phase


@attrs.frozen
class BatchSpec:
    """What to score, with which model, and where the result goes; the name follows from the content unless given."""

    name: str = attrs.field(validator=lambda _i, _a, value: _named(value))
    model: ModelVersion
    source: tuple[str, ...]
    """Files as the caller named them, globs and directories already resolved, in a fixed order."""
    output: str
    key: str | None = None
    """The column that identifies a row; checked to exist, kept in the output and named in the quarantine."""
    columns: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Model input name to column name, where they differ."""
    keep: tuple[str, ...] | None = None
    """Input columns to keep beside the prediction; None keeps all."""
    max_bad_rows: int | None = 0
    """How many rows may be set aside before the job fails; None for any number."""
    chunk_rows: int = 65_536
    workers: int = 0
    """Parts that are scored at the same time; 0 takes as many as pay, up to one for each core."""
    options: Mapping[str, str] = attrs.field(factory=dict[str, str])

    def __attrs_post_init__(self) -> None:
        for name, value, least in (("chunk_rows", self.chunk_rows, 1), ("workers", self.workers, 0)):
            if value < least:
                message = f"{name} is {value}"
                raise ConfigurationError(message, hint=f"use {least} or more")
        if self.max_bad_rows is not None and self.max_bad_rows < 0:
            message = f"max_bad_rows is {self.max_bad_rows}"
            raise ConfigurationError(message, hint="use 0 or more, or None for any number")


def _named(value: str) -> None:
    check_name(value, "job name")


@attrs.frozen
class BatchState:
    """A job as the backend shows it now."""

    name: str
    phase: Phase
    output: str
    rows_done: int = 0
    """Rows whose result is durable, bad rows included."""
    rows_total: int | None = None
    bad_rows: int = 0
    rows_per_second: float | None = None
    seconds_left: float | None = None
    quarantine: str | None = None
    """Where the bad rows lie, when there are any."""
    note: str = ""
