"""What happened, as data; log lines, progress bars and notebook views are made of these."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs


class Level(enum.StrEnum):
    """How much attention an event deserves; the names of standard logging."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Name(enum.StrEnum):
    """The stable event names; names and fields are public API."""

    OPERATION_STARTED = "operation.started"
    OPERATION_RESUMED = "operation.resumed"
    OPERATION_PROGRESS = "operation.progress"
    OPERATION_RETRY = "operation.retry"
    OPERATION_SUCCEEDED = "operation.succeeded"
    OPERATION_FAILED = "operation.failed"
    OPERATION_CANCELLED = "operation.cancelled"
    REVISION_READY = "revision.ready"
    GOLDEN_CHECKED = "golden.checked"
    TRAFFIC_CHANGED = "traffic.changed"
    ROLLOUT_STEP = "rollout.step"
    ROLLOUT_LOOK = "rollout.look"
    ROLLOUT_VERDICT = "rollout.verdict"
    ROLLOUT_BLIND = "rollout.blind"
    ROLLOUT_SAMPLE_RATIO = "rollout.sample_ratio"
    ROLLOUT_SKIPPED = "rollout.skipped"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_PROMOTED = "rollout.promoted"
    ROLLOUT_ROLLED_BACK = "rollout.rolled_back"


@attrs.frozen
class Event:
    """One thing that happened; ``at`` in seconds since the epoch, UTC. Fields hold identifiers and figures, never payloads or secrets."""

    name: Name
    at: float
    operation: str = ""
    level: Level = Level.INFO
    fields: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
