"""Whether a change that the service was asked for has come about; pure.

An operation is finished when the resource has settled, and has succeeded when the resource then is what was wanted. The status of the
operation itself is only looked at for the reason of a failure: its answer is 200 then, too.
"""

from __future__ import annotations

import enum

import attrs

from modeldeploy.backends.azureml.described import State

ASKED, MOVING = "asked", "moving"


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


def judge(state: State | None, phase: str, *, holds: bool, age: float, grace: float) -> Verdict:
    """Judge the state of a resource ``age`` seconds after the request; ``holds`` says whether it is what was asked for.

    ``phase`` is what was seen before: nothing yet, or a change under way. What was before may be seen for ``grace`` seconds.
    """
    waits = phase == ASKED and age <= grace
    if state is None:
        return _unseen(phase, waits=waits)
    if state.broken:
        return Verdict(Outcome.FAILED, phase, f"the operation ended as {state.value}")
    if not state.settled:
        return Verdict(Outcome.GOES_ON, MOVING, f"it is {state.value}")
    if holds:
        return Verdict(Outcome.DONE, phase)
    if waits:
        return Verdict(Outcome.GOES_ON, phase, "the service still shows what was before")
    return Verdict(
        Outcome.FAILED,
        phase,
        "the service does not show what was asked for: somebody else changed it, or it was undone",
    )


def _unseen(phase: str, *, waits: bool) -> Verdict:
    if waits:
        return Verdict(Outcome.GOES_ON, phase, "the service does not show it yet")
    return Verdict(Outcome.FAILED, phase, "it is gone: somebody deleted it")
