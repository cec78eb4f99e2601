"""What changes of an endpoint have in common: the service is asked, and its word is not taken for it.

A change of ours is one step after the other, each found done when it is repeated. What is there is read before each request, so a change
that somebody else has under way is waited for, never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs

from modeldeploy.backends.azureml import verdicts
from modeldeploy.backends.azureml.described import Seen, State
from modeldeploy.backends.azureml.errors import BusyError, of_answer
from modeldeploy.backends.azureml.pace import Pace
from modeldeploy.backends.azureml.provider import Provider
from modeldeploy.backends.azureml.verdicts import Verdict
from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.errors import NotFoundError
from modeldeploy.values.ticket import Ticket

START = "start"


@attrs.frozen
class Tools:
    """What every change works with."""

    provider: Provider
    pace: Pace
    tail: Callable[[str, str], str] = lambda _endpoint, _revision: ""
    """Gives the last lines of a revision's log, for the note of a failure."""


class Change:
    """One kind of change; a subclass gives its steps."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        self._tools = tools
        self._provider = tools.provider
        self.ticket = ticket
        self.name = ticket.target

    def advance(self) -> Ticket:
        """Do the next step."""
        step = Step.of(self.ticket)
        try:
            return self._steps()[step.name](step)
        except BusyError as error:
            return waiting(self.ticket, self._tools.pace.poll(0), f"waits: {error.message}")

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        raise NotImplementedError

    def _seen(self) -> Seen:
        seen = self._provider.seen(self.name)
        if seen is None:
            raise not_there(self.name)
        return seen

    def _move(self, name: str, note: str, *, about: str = "") -> Ticket:
        return moved(self.ticket, Step(name, about, time.time()), note=note)

    def _finished(self) -> Ticket:
        return attrs.evolve(self.ticket, note="", poll_after=0.0).done()

    def _busy(self, what: State) -> Ticket:
        note = f"waits for a change of the endpoint that is under way ({what.value})"
        return waiting(self.ticket, self._tools.pace.poll(0), note)

    def _judge(self, state: State | None, step: Step, *, holds: bool) -> Verdict:
        age = max(0.0, time.time() - step.at)
        return verdicts.judge(state, _phase(step), holds=holds, age=age, grace=self._tools.pace.grace)

    def _goes_on(self, step: Step, verdict: Verdict) -> Ticket:
        """Give the ticket that goes on waiting; what was seen to move is remembered by the step's name."""
        age = max(0.0, time.time() - step.at)
        base = step.name.removesuffix(_MOVING)
        name = base + _MOVING if verdict.phase == verdicts.MOVING else base
        ticket = attrs.evolve(self.ticket, step=str(attrs.evolve(step, name=name)))
        return waiting(ticket, self._tools.pace.poll(age), verdict.note)

    def _why(self, step: Step, verdict: Verdict) -> str:
        """Say why it failed: what the operation says, or what is seen."""
        found = self._provider.reason(step.about)
        return f"{verdict.note}: {of_answer(found, {})}" if found else verdict.note


_MOVING = "-moving"


def _phase(step: Step) -> str:
    return verdicts.MOVING if step.name.endswith(_MOVING) else verdicts.ASKED


def watched(name: str, watch: Callable[[Step], Ticket]) -> dict[str, Callable[[Step], Ticket]]:
    """Give the two steps by which something is watched: asked for, and seen to move."""
    return {name: watch, name + _MOVING: watch}


def not_there(endpoint: str) -> NotFoundError:
    """Say that there is no such endpoint."""
    message = f"there is no endpoint {endpoint!r}"
    return NotFoundError(message, hint="Endpoint.list() names those that there are", context={"backend": "azureml"})
