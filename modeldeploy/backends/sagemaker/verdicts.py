"""Whether a change that the service was asked for has come about; pure.

The service reports InService for an update that it silently took back, and may go on showing the state before a request for a while. So
InService alone proves nothing: what was asked for must be what is shown, and no rollback may have been seen on the way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs

from modeldeploy.backends.sagemaker.described import Seen, Status

_BROKEN = frozenset({Status.FAILED, Status.UPDATE_ROLLBACK_FAILED, Status.OUT_OF_SERVICE})
ASKED, MOVING, BACK = "asked", "moving", "rolling-back"


class Outcome(enum.Enum):
    """What a look says."""

    GOES_ON = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


@attrs.frozen
class Verdict:
    """What a look says, the phase to remember, and why."""

    outcome: Outcome
    phase: str = ASKED
    note: str = ""


def judge(seen: Seen | None, phase: str, *, holds: Callable[[Seen], bool], age: float, grace: float) -> Verdict:
    """Judge what is seen ``age`` seconds after the request.

    ``holds`` says whether what is seen is what was asked for; ``phase`` is what was seen before: nothing yet, a change under way, or a
    rollback. What was before may be seen for ``grace`` seconds.
    """
    waits = phase == ASKED and age <= grace
    if seen is None:
        return _unseen(phase, waits=waits)
    if seen.status in _BROKEN:
        return Verdict(Outcome.FAILED, phase, f"the endpoint is {seen.status.value}: {_reason(seen)}")
    if seen.status is Status.ROLLING_BACK or phase == BACK:
        return _going_back(seen)
    if not seen.status.settled:
        return Verdict(Outcome.GOES_ON, MOVING, seen.stage or f"the endpoint is {seen.status.value}")
    return Verdict(Outcome.DONE, phase) if holds(seen) else _unchanged(seen, phase, waits=waits)


def _unseen(phase: str, *, waits: bool) -> Verdict:
    if waits:
        return Verdict(Outcome.GOES_ON, phase, "the service does not show it yet")
    return Verdict(Outcome.FAILED, phase, "the endpoint is gone: somebody deleted it")


def _unchanged(seen: Seen, phase: str, *, waits: bool) -> Verdict:
    if waits:
        return Verdict(Outcome.GOES_ON, phase, "the service still shows what was before")
    return Verdict(Outcome.FAILED, phase, f"the service took the change back: {_reason(seen)}")


def _going_back(seen: Seen) -> Verdict:
    if seen.status.settled:
        return Verdict(Outcome.FAILED, BACK, f"the service took the change back: {_reason(seen)}")
    return Verdict(Outcome.GOES_ON, BACK, f"the service takes the change back: {_reason(seen)}")


def _reason(seen: Seen) -> str:
    # The service may clear the reason once the rollback is complete.
    return seen.reason or "it gives no reason"
