"""What changes of an endpoint have in common: a configuration is made, the service is asked, and its word is not taken for it.

A change of ours is one step after the other, each found done when it is repeated. What an endpoint shows is read before each request, so
a change that somebody else has under way is waited for, never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import attrs

from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.sagemaker import verdicts
from modeldeploy.backends.sagemaker.described import Config, Seen, Status
from modeldeploy.backends.sagemaker.errors import AlreadyThereError, BusyError
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.verdicts import ASKED, BACK, MOVING, Outcome
from modeldeploy.errors import NotFoundError
from modeldeploy.values.ticket import Ticket

START, PREPARE, CONFIG, TIDY = "start", "prepare", "config", "tidy"
_RETAINED = [{"VariantPropertyType": "DesiredWeight"}]


@attrs.frozen
class Tools:
    """What every change works with."""

    provider: Provider
    pace: Pace
    tail: Callable[[str, str], str] = lambda _endpoint, _revision: ""
    """Gives the last lines of a revision's containers, for the note of a failure."""


class Change:
    """One kind of change; a subclass says what configuration it wants and when it holds."""

    at_once: ClassVar[bool] = False
    """Whether the service is asked in the step that makes the configuration: a table that was begun must not wait for its moment."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        self._tools = tools
        self._provider = tools.provider
        self.ticket = ticket
        self.name = ticket.target

    def advance(self) -> Ticket:
        """Do the next step."""
        step = Step.of(self.ticket)
        steps = {**self._steps(), PREPARE: self._prepare, CONFIG: self._send, TIDY: self._tidy}
        watched = dict.fromkeys((ASKED, MOVING, BACK), self._watch)
        return {**watched, **steps}[step.name](step)

    # For subclasses

    def _steps(self) -> dict[str, Callable[[Step], Ticket]]:
        raise NotImplementedError

    def _wanted(self, seen: Seen | None, config: Config | None) -> Config | None:
        """Give the configuration to bring the endpoint to; None when it holds already."""
        raise NotImplementedError

    def _holds(self, seen: Seen) -> bool:
        """Whether what is seen is what is wanted."""
        raise NotImplementedError

    def _failed(self, note: str) -> Ticket:
        return self.ticket.failed(note)

    # Making a configuration and asking for it

    def _look(self) -> tuple[Seen | None, Config | None]:
        seen = self._provider.seen(self.name)
        return seen, self._provider.config_of(seen) if seen else None

    def _busy(self, seen: Seen) -> Ticket:
        note = f"waits for a change of the endpoint that is under way ({seen.status.value})"
        return waiting(self.ticket, self._tools.pace.poll(time.time() - seen.changed), note)

    def _prepare(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is not None and not seen.status.settled:
            return self._busy(seen)
        wanted = self._wanted(seen, config)
        if wanted is None:
            return self._ask(seen.config if seen else "")
        try:
            name = self._provider.put_config(self.name, wanted)
        except NotFoundError as error:
            return self._not_yet(step, error)
        made = Step(CONFIG, name, time.time())
        if self.at_once:
            return self._request_or_wait(seen, made)
        return moved(self.ticket, made, note="made the endpoint's configuration")

    def _not_yet(self, step: Step, error: NotFoundError) -> Ticket:
        """Wait for what we have just made: the service may not find it for a while."""
        if time.time() - step.at > self._tools.pace.grace:
            raise error
        return waiting(self.ticket, self._tools.pace.poll(0), "the service does not find yet what was made")

    def _send(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is not None and not seen.status.settled:
            return moved(self.ticket, Step(MOVING, step.about, time.time())) if self._brings(seen) else self._busy(seen)
        wanted = self._wanted(seen, config)
        if wanted is not None and wanted.name(self.name) != step.about:
            # Somebody changed the endpoint meanwhile, so this configuration would undo that.
            return moved(self.ticket, Step(PREPARE, at=step.at))
        return self._ask(step.about) if wanted is None else self._request_or_wait(seen, step)

    def _request_or_wait(self, seen: Seen | None, step: Step) -> Ticket:
        try:
            self._create(step.about) if seen is None else self._update(step.about)
        except BusyError:
            return waiting(
                self.ticket, self._tools.pace.poll(0), "waits for a change of the endpoint that is under way"
            )
        except AlreadyThereError:
            return waiting(self.ticket, self._tools.pace.poll(0), "the endpoint is there and is not shown yet")
        except NotFoundError as error:
            if not self._provider.has_config(step.about):
                # Somebody tidied up meanwhile.
                return moved(self.ticket, Step(PREPARE, at=step.at))
            return self._not_yet(step, error)
        return self._ask(step.about)

    def _brings(self, seen: Seen) -> bool:
        """Whether the change under way is the one that is wanted."""
        pending = self._provider.config(seen.pending) if seen.pending else None
        return pending is not None and self._in(pending)

    def _in(self, config: Config) -> bool:
        """Whether a configuration has what is wanted."""
        raise NotImplementedError

    def _update(self, config: str) -> None:
        # Numbers of instances that autoscaling chose stay; weights are those of the new configuration, which restates them.
        self._provider.client.sagemaker(
            "update_endpoint",
            EndpointName=self.name,
            EndpointConfigName=config,
            RetainAllVariantProperties=True,
            ExcludeRetainedVariantProperties=_RETAINED,
        )

    def _create(self, _config: str) -> None:
        message = f"there is no endpoint {self.name!r}"
        raise NotFoundError(message)

    def _ask(self, about: str) -> Ticket:
        return moved(self.ticket, Step(ASKED, about, time.time()), note="the service was asked")

    # Watching

    def _watch(self, step: Step) -> Ticket:
        seen, age = self._provider.seen(self.name), max(0.0, time.time() - step.at)
        verdict = verdicts.judge(seen, step.name, holds=self._holds, age=age, grace=self._tools.pace.grace)
        if verdict.outcome is Outcome.DONE:
            return self._done()
        if verdict.outcome is Outcome.FAILED:
            return self._failed(verdict.note)
        note = verdict.note
        if seen is not None and time.time() - seen.changed > self._tools.pace.patience:
            note += ", and nothing has changed for a long time: is there capacity, and can the role read the image and the data?"
        ticket = attrs.evolve(self.ticket, step=str(attrs.evolve(step, name=verdict.phase)))
        return waiting(ticket, self._tools.pace.poll(age), note)

    def _done(self) -> Ticket:
        return moved(self.ticket, Step(TIDY))

    def _tidy(self, _step: Step) -> Ticket:
        self._delete_unused()
        return self.ticket.done()

    def _delete_unused(self) -> None:
        """Delete the configurations that this endpoint does not use; never while it changes, and never its own."""
        seen = self._provider.seen(self.name)
        if seen is not None and not seen.status.settled:
            return
        kept = {seen.config, seen.pending} if seen else set()
        for name, _made in self._provider.configs_of(self.name):
            if name not in kept:
                self._provider.delete_config(name)


def refuse_failed(seen: Seen) -> str:
    """Say why nothing can be changed about an endpoint, or nothing."""
    if seen.status in {Status.FAILED, Status.UPDATE_ROLLBACK_FAILED, Status.OUT_OF_SERVICE}:
        return f"the endpoint is {seen.status.value} ({seen.reason or 'no reason given'}) and can only be deleted"
    return ""
