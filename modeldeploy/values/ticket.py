"""Work in progress at a provider, as plain data that any process can take up."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs


class Phase(enum.StrEnum):
    """Where a piece of work stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self is not Phase.RUNNING


class Action(enum.StrEnum):
    """What a ticket asks for; one for each start call of the service provider interface."""

    PUT_REVISION = "put-revision"
    SET_TRAFFIC = "set-traffic"
    DROP_REVISION = "drop-revision"
    DROP_ENDPOINT = "drop-endpoint"
    PUT_JOB = "put-job"


@attrs.frozen
class Ticket:
    """One piece of work: journalled before its first write, moved on by ``Backend.advance``, plain JSON without secrets."""

    action: Action
    target: str
    """The name of the endpoint or job."""
    wanted: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """The state that must be observed at the end, as JSON."""
    step: str = "start"
    """The backend's own note of what it did last; "start" means that nothing was written yet."""
    phase: Phase = Phase.RUNNING
    fraction: float | None = None
    """How much is done, 0-1; None when nobody knows."""
    note: str = ""
    """What is going on, or why it failed, in words for the user."""
    poll_after: float = 0.0
    """Seconds after which looking again is useful."""

    def done(self) -> Ticket:
        """Give this ticket as one whose wanted state is observed."""
        return attrs.evolve(self, step="done", phase=Phase.SUCCEEDED, fraction=1.0)

    def failed(self, note: str) -> Ticket:
        """Give this ticket as one that failed, for the reason in ``note``."""
        return attrs.evolve(self, phase=Phase.FAILED, note=note)
