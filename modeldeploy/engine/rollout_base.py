"""What every stage of a rollout rests on: saving before acting, carrying work, looking at the endpoint, heeding users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.engine.carry import carry
from modeldeploy.engine.cursor import RolloutCursor, Stage
from modeldeploy.engine.effects import Emit, Flow, Save, call, inbox
from modeldeploy.engine.record import Command, HistoryEntry, Verb
from modeldeploy.errors import OperationCancelled, OperationFailed
from modeldeploy.spi import Rollable
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Level, Name
from modeldeploy.values.serving import WHOLE, EndpointState
from modeldeploy.values.ticket import Phase, Ticket


class AbortedError(Exception):
    """A user's abort, on its way out of a wait."""


class RolloutBase:
    """A cursor, and how it changes: it is journalled before each act."""

    def __init__(self, backend: Rollable, cursor: RolloutCursor) -> None:
        self._backend = backend
        self.cursor = cursor
        self.phase = Phase.RUNNING

    # Plumbing

    def _save(
        self, *, phase: Phase = Phase.RUNNING, outcome: str = "", history: HistoryEntry | None = None, **changes: Any
    ) -> Flow[None]:
        self.cursor = attrs.evolve(self.cursor, **changes)
        yield Save(to_json(self.cursor), phase, outcome, history)
        self.phase = phase

    def _end(self, phase: Phase, outcome: str, history: HistoryEntry | None = None) -> Flow[None]:
        yield Emit(_END[phase], {"outcome": outcome}, Level.INFO if phase is Phase.SUCCEEDED else Level.WARNING)
        yield from self._save(phase=phase, outcome=outcome, history=history, ticket=None)

    def _entry(self, what: str, why: str) -> HistoryEntry:
        """Write down what happened to the new revision, with what the gates saw."""
        evidence = {"revision": to_json(self.cursor.revision), "gates": to_json(self.cursor.results)}
        return HistoryEntry(what, self.cursor.revision.id, why, evidence)

    def _observe(self) -> Flow[EndpointState | None]:
        name = self.cursor.endpoint.name
        return (yield from call("observe", lambda: self._backend.observe(name)))

    def _carry(self, start: Callable[[], Ticket], *, attend: bool = True) -> Flow[None]:
        """Start a piece of work and carry it, or take up the one that the cursor holds."""
        ticket = self.cursor.ticket
        if ticket is None:
            ticket = yield from call("start", start)
            yield from self._save(ticket=ticket)
        try:
            yield from carry(self._backend, ticket, save=self._save_ticket, attend=self._attend if attend else None)
        except (OperationFailed, OperationCancelled):
            # A ticket that ended is no work to take up again.
            yield from self._save(ticket=None)
            raise

    def _save_ticket(self, ticket: Ticket) -> Flow[Ticket]:
        yield from self._save(ticket=ticket)
        return ticket

    def _attend(self, ticket: Ticket) -> Flow[Ticket]:
        """While the provider works only an abort is heeded; the rest waits for the next soak."""
        for command in (yield from inbox(self.cursor.seen)):
            if command.verb in {Verb.ABORT, Verb.CANCEL}:
                yield from self._abort(command)
        return ticket

    # What users say

    def _heed(self) -> Flow[bool]:
        """Do what users said since; whether the step is over by that: paused, or skipped."""
        for command in (yield from inbox(self.cursor.seen)):
            if command.verb is Verb.PAUSE:
                yield from self._hold(command.reason or f"paused by {command.who}", seen=command.number)
                return True
            if command.verb is Verb.SKIP:
                yield from self._skip(command)
                return True
            if command.verb is Verb.PROMOTE:
                yield from self._force(command)
            elif command.verb in {Verb.ABORT, Verb.CANCEL}:
                yield from self._abort(command)
            else:
                yield from self._save(seen=command.number)
        return False

    def _skip(self, command: Command) -> Flow[None]:
        """Go on to the next step, whatever the gates say of this one."""
        reason = command.reason or f"skipped by {command.who}"
        fields = {"revision": self.cursor.revision.id, "step": self.cursor.step, "reason": reason}
        yield Emit(Name.ROLLOUT_SKIPPED, fields)
        step = self.cursor.step + (self.cursor.stage is Stage.WALK)
        if self.cursor.since is None and self.cursor.policy.promotes:
            # The last table is where the walk leads; before it is reached there is nothing of it to skip.
            step = min(step, len(self.cursor.policy.steps) - 1)
        yield from self._next(step, seen=command.number, paused=False, results=())

    def _next(self, step: int, **changes: Any) -> Flow[None]:
        """Save that another step begins; what was counted stays, what was asked begins anew."""
        evidence = attrs.evolve(self.cursor.evidence, here=0, told=0.0, blind=None, assigned=())
        yield from self._save(step=step, since=None, evidence=evidence, **changes)

    def _force(self, command: Command) -> Flow[None]:
        cursor = self.cursor
        # A shadow that would not be promoted is, when a user says so.
        steps = cursor.policy.steps if cursor.policy.promotes else (*cursor.policy.steps, WHOLE)
        policy, last = attrs.evolve(cursor.policy, steps=steps), len(steps) - 1
        since = cursor.since if cursor.step == last else None
        why = command.reason or f"promoted by {command.who}"
        yield from self._save(
            policy=policy, step=last, since=since, forced=True, paused=False, reason=why, seen=command.number
        )

    def _abort(self, command: Command) -> Flow[None]:
        reason = command.reason or f"aborted by {command.who}"
        yield from self._save(seen=command.number, reason=reason, paused=False, aborted=True)
        raise AbortedError

    def _hold(self, reason: str, **changes: Any) -> Flow[None]:
        yield Emit(Name.ROLLOUT_PAUSED, {"reason": reason}, Level.WARNING)
        yield from self._save(paused=True, ticket=None, outcome=f"paused: {reason}", **changes)

    def _unpaused(self) -> Flow[bool]:
        """Heed what was said while it was paused: an abort, as while it runs, or else the last word."""
        commands = yield from inbox(self.cursor.seen)
        wanted = [command for command in commands if command.verb is not Verb.PAUSE]
        if not wanted:
            return False
        last = next((command for command in wanted if command.verb in {Verb.ABORT, Verb.CANCEL}), wanted[-1])
        yield Emit(Name.ROLLOUT_RESUMED, {"verb": last.verb.value, "who": last.who})
        if last.verb is Verb.PROMOTE:
            yield from self._force(last)
        elif last.verb is Verb.SKIP and not self.cursor.drifted:
            yield from self._skip(last)
        elif last.verb in {Verb.ABORT, Verb.CANCEL}:
            reason = last.reason or f"aborted by {last.who}"
            stage = self.cursor.retreat if self.cursor.stage is Stage.WALK else Stage.CLEAN
            yield from self._save(stage=stage, seen=last.number, reason=reason, paused=False, aborted=True)
        else:
            # The soak of this step starts again; what was counted is kept, and what the gates said is asked anew.
            yield from self._next(self.cursor.step, seen=last.number, paused=False, results=())
        return True


_END = {
    Phase.SUCCEEDED: Name.OPERATION_SUCCEEDED,
    Phase.FAILED: Name.OPERATION_FAILED,
    Phase.CANCELLED: Name.OPERATION_CANCELLED,
}
