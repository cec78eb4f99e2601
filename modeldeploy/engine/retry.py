"""The one retry policy; the only user of tenacity.

Only errors that say ``transient`` are repeated. Waits are exponential with full jitter (a uniform draw from zero to the growing cap), never
shorter than what ``retry_after`` asks for, and never beyond the deadline: a wait that would pass it is not begun.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from modeldeploy.engine.effects import Call, Dialogue, Effect, Emit, Flow, Sleep, now
from modeldeploy.errors import ModelDeployError
from modeldeploy.values.events import Level, Name

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
_CLOCK_S = 1e-4
"""Waits shorter than this are over."""


@attrs.frozen
class RetryPolicy:
    """How often and for how long one call is repeated; seconds."""

    attempts: int = 10
    first: float = 0.5
    """The first wait is drawn from 0 to this."""
    cap: float = 20.0
    deadline: float = 300.0
    """Counted from the first attempt of the call."""


def retrying(flow: Flow[T], policy: RetryPolicy, *, rng: random.Random | None = None) -> Flow[T]:
    """Wrap a flow so that its calls are repeated by the policy; every other effect passes through."""
    draw = rng or random.Random()  # noqa: S311 - jitter is no secret
    dialogue = Dialogue(flow)
    while dialogue.goes_on():
        try:
            dialogue.answer = yield from _performed(dialogue.effect, policy, draw)
        except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
            dialogue.error = raised
    return dialogue.value


def _performed(effect: Effect, policy: RetryPolicy, rng: random.Random) -> Flow[Any]:
    if isinstance(effect, Call) and effect.patient:
        return (yield from _attempts(effect, policy, rng))
    return (yield effect)


def _attempts(effect: Call[Any], policy: RetryPolicy, rng: random.Random) -> Flow[Any]:
    """Perform one call as often as tenacity says; the driver does the sleeping.

    It is asked, and imported, only after a failure: its import takes longer than most operations that have none.
    """
    began = yield from now()
    advice: tuple[Any, Any] | None = None
    while True:
        try:
            return (yield effect)
        except ModelDeployError as error:
            if not error.transient:
                raise
            advice = advice or _tenacity(policy, rng)
            state, decide = advice
            state.set_exception((type(error), error, error.__traceback__))
            state.spent = (yield from now()) - began
        yield from _pause(effect, float(decide(state)), state.outcome.exception(), state.attempt_number)
        state.prepare_for_next_attempt()


def _pause(effect: Call[Any], seconds: float, error: BaseException, attempt: int) -> Flow[None]:
    fields = {"call": effect.what, "attempt": attempt, "wait_s": round(seconds, 3), "error": str(error)}
    yield Emit(Name.OPERATION_RETRY, fields, Level.WARNING)
    until = (yield from now()) + seconds
    # A command may wake the driver early; the provider asked for all of the time.
    while (left := until - (yield from now())) > _CLOCK_S:
        yield Sleep(left)


def _tenacity(policy: RetryPolicy, rng: random.Random) -> tuple[Any, Any]:
    import tenacity

    class State(tenacity.RetryCallState):
        """What tenacity knows of the call, with time as the driver tells it (virtual time included)."""

        spent = 0.0

    def wait(state: tenacity.RetryCallState) -> float:
        window = min(policy.cap, policy.first * 2.0 ** (state.attempt_number - 1))
        asked = getattr(_error_of(state), "retry_after", None) or 0.0
        return max(float(asked), rng.uniform(0.0, window))

    def stop(state: tenacity.RetryCallState) -> bool:
        too_late = getattr(state, "spent", 0.0) + state.upcoming_sleep > policy.deadline
        return too_late or state.attempt_number >= policy.attempts

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: getattr(error, "transient", False)),
        wait=wait,
        stop=stop,
        reraise=True,
    )
    retrying.begin()
    return State(retrying, fn=None, args=(), kwargs={}), retrying.iter


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
