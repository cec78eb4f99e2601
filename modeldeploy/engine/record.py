"""What the journal holds: operations, commands to them, and the history of endpoints."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.values.ticket import Phase


class Kind(enum.StrEnum):
    """The kinds of operation; each has one flow."""

    ROLLOUT = "rollout"
    ROLLBACK = "rollback"
    DELETE = "delete"
    BATCH = "batch"


class Verb(enum.StrEnum):
    """What a user may tell a running operation."""

    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    PROMOTE = "promote"
    ABORT = "abort"
    CANCEL = "cancel"


@attrs.frozen
class Command:
    """One thing that a user told an operation; ``number`` rises."""

    number: int
    verb: Verb
    reason: str
    who: str
    at: float


@attrs.frozen
class Record:
    """One operation as it stands in the journal. ``seq`` changes with every write; a write with an old one is refused."""

    id: str
    kind: Kind
    backend: str
    target: str
    cursor: Mapping[str, Any]
    phase: Phase = Phase.RUNNING
    outcome: str = ""
    """Why it ended, or why it waits, in words for the user."""
    seq: int = 0
    created: float = 0.0
    updated: float = 0.0
    who: str = ""
    reason: str = ""

    @property
    def paused(self) -> bool:
        """Whether it waits for a user's word."""
        return bool(self.cursor.get("paused")) and not self.phase.ended


@attrs.frozen
class HistoryEntry:
    """One change of an endpoint, to be appended: ``what`` happened to ``revision``, why, and on what evidence."""

    what: str
    revision: str
    why: str = ""
    evidence: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.frozen
class HistoryLine:
    """One line of an endpoint's history. ``chain`` is the SHA-256 over the line and the chain before it, so order and content can be verified."""

    number: int
    at: float
    who: str
    operation: str
    entry: HistoryEntry
    chain: str
