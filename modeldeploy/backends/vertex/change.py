"""What changes of an endpoint have in common: the service is asked, and its word is not taken for it.

A change of ours is one step after the other, each found done when it is repeated. What is there is read before each request, so a change
that somebody else has under way is waited for, never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs

from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.vertex.described import Progress, Seen
from modeldeploy.backends.vertex.errors import BusyError, of_operation, of_said
from modeldeploy.backends.vertex.pace import Pace
from modeldeploy.backends.vertex.provider import Provider
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

    def _move(self, name: str, note: str, *, about: str = "", fraction: float | None = None) -> Ticket:
        return moved(self.ticket, Step(name, about, time.time()), note=note, fraction=fraction)

    def _finished(self) -> Ticket:
        return attrs.evolve(self.ticket, note="", poll_after=0.0).done()

    def _wait(self, step: Step, note: str) -> Ticket:
        return waiting(self.ticket, self._tools.pace.poll(age(step)), note)

    def _late(self, step: Step) -> bool:
        """Whether what was asked for must be seen by now."""
        return age(step) > self._tools.pace.grace

    def _busy(self, seen: Seen) -> Ticket:
        note = f"waits for {len(seen.moving)} operation(s) on the endpoint that are under way"
        return waiting(self.ticket, self._tools.pace.poll(0), note)

    @staticmethod
    def _why(progress: Progress) -> str:
        """Say why an operation failed, in the words of our own errors."""
        return str(of_said(of_operation(progress.code, progress.message), {}))


def age(step: Step) -> float:
    """Give how many seconds ago a step was begun."""
    return max(0.0, time.time() - step.at)


def not_there(endpoint: str) -> NotFoundError:
    """Say that there is no such endpoint."""
    message = f"there is no endpoint {endpoint!r}"
    return NotFoundError(message, hint="Endpoint.list() names those that there are", context={"backend": "vertex"})
