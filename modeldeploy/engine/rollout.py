"""The flow of a rollout: make the revision ready, hold it against its golden outputs, walk the traffic, promote or go back.

Every decision is journalled before it is acted on. Resuming therefore never asks again: a rollout that was going back goes back, and a
revision that failed a gate is not sent out a second time. Each act first looks whether it is done already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.engine import gates
from modeldeploy.engine.carry import carry
from modeldeploy.engine.cursor import RolloutCursor, Stage
from modeldeploy.engine.effects import Emit, Flow, Save, Sleep, call, inbox, now
from modeldeploy.engine.record import Command, HistoryEntry, Verb
from modeldeploy.errors import ConflictError, FencedError, ModelDeployError, OperationCancelled, OperationFailed
from modeldeploy.spi import Meters, Serving
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Level, Name
from modeldeploy.values.gate import GateResult, Verdict
from modeldeploy.values.metrics import Window
from modeldeploy.values.rollout import OnInconclusive
from modeldeploy.values.serving import WHOLE, EndpointState, Revision, Traffic
from modeldeploy.values.ticket import Phase, Ticket

__all__ = ["Check", "RolloutCursor", "RolloutFlow", "Stage"]

Check = Callable[[Revision], None]
"""Holds the running revision against its golden outputs; raises when it does not reproduce them."""

_BASELINE_S = 60.0
"""How far back stable is measured when everything goes to the new revision and stable answers nothing any more."""


class _AbortedError(Exception):
    """A user's abort, on its way out of a wait."""


class RolloutFlow:
    """One rollout; ``run`` may be started again from any journalled cursor."""

    def __init__(self, backend: Serving, cursor: RolloutCursor, check: Check | None) -> None:
        self._backend = backend
        self._check = check
        self.cursor = cursor
        self.phase = Phase.RUNNING

    def run(self) -> Flow[RolloutCursor]:
        """Go on until the rollout ended or waits for a user."""
        stages: dict[Stage, Callable[[], Flow[None]]] = {
            Stage.PREPARE: self._prepare,
            Stage.CHECK: self._hold_against_golden,
            Stage.WALK: self._walk,
            Stage.PROMOTE: self._promote,
            Stage.TIDY: self._tidy,
            Stage.BACK: self._back,
            Stage.CLEAN: self._clean,
        }
        while not self.phase.ended:
            # Looked at after pausing too: the word to go on may have come together with the word to pause.
            if self.cursor.paused and not (yield from self._unpaused()):
                break
            yield from stages[self.cursor.stage]()
        return self.cursor

    # The stages

    def _prepare(self) -> Flow[None]:
        if not self.cursor.begun:
            yield from self._begin()
        try:
            yield from self._carry(lambda: self._backend.put_revision(self.cursor.endpoint, self.cursor.revision))
            yield from self._confirm_ready()
        except FencedError:
            raise
        except _AbortedError:
            yield from self._save(stage=Stage.CLEAN, ticket=None)
        except ModelDeployError as error:
            yield from self._save(stage=Stage.CLEAN, ticket=None, reason=str(error))
        else:
            yield Emit(Name.REVISION_READY, {"revision": self.cursor.revision.id})
            yield from self._save(stage=Stage.CHECK, ticket=None)

    def _begin(self) -> Flow[None]:
        state = yield from self._observe()
        existed = state is not None and state.revision(self.cursor.revision.id) is not None
        yield from self._save(begun=True, baseline=state.traffic if state else None, existed=existed)

    def _hold_against_golden(self) -> Flow[None]:
        check, revision = self._askable(), self.cursor.revision
        try:
            if (yield from self._heed()):
                return
            if check is not None:
                yield from call("check golden outputs", lambda: check(revision))
        except FencedError:
            raise
        except _AbortedError:
            yield from self._save(stage=Stage.CLEAN)
        except ModelDeployError as error:
            fields = {"revision": revision.id, "ok": False, "reason": str(error)}
            yield Emit(Name.GOLDEN_CHECKED, fields, Level.ERROR)
            yield from self._save(stage=Stage.CLEAN, verdict=Verdict.FAIL, reason=str(error))
        else:
            yield Emit(Name.GOLDEN_CHECKED, {"revision": revision.id, "ok": True, "asked": check is not None})
            yield from self._set_out()

    def _askable(self) -> Check | None:
        """Give the check, unless the new revision shares an endpoint on which a call cannot name who answers it."""
        alone = self.cursor.baseline is None
        return self._check if alone or self._backend.capabilities.pinned_invoke else None

    def _set_out(self) -> Flow[None]:
        """Choose the first step: never one that takes away a share which the revision has already."""
        baseline, name, steps = self.cursor.baseline, self.cursor.revision.id, self.cursor.policy.steps
        if baseline is None:
            # A new endpoint gives everything to its first revision by itself.
            yield from self._save(stage=Stage.PROMOTE)
        elif baseline.share(name) == WHOLE:
            yield from self._end(Phase.SUCCEEDED, f"{name} takes all traffic already")
        elif baseline.live:
            first = max(self.cursor.step, self.cursor.first_step(baseline.share(name)))
            yield from self._save(stage=Stage.WALK, step=first)
        else:
            # Nobody to share with and nobody to compare with.
            yield from self._save(stage=Stage.WALK, step=len(steps) - 1, forced=True)

    def _walk(self) -> Flow[None]:
        while self.cursor.stage is Stage.WALK and not self.cursor.paused:
            if self.cursor.step >= len(self.cursor.policy.steps):
                yield from self._save(stage=Stage.PROMOTE)
                return
            try:
                if (yield from self._heed()):
                    return
                yield from self._shift()
                yield from self._soak()
            except FencedError:
                raise
            except _AbortedError:
                yield from self._save(stage=Stage.BACK, ticket=None)
            except ConflictError as error:
                yield from self._hold(f"traffic was changed by somebody else: {error}", drifted=True)
            except ModelDeployError as error:
                yield from self._save(stage=Stage.BACK, ticket=None, reason=f"the provider failed: {error}")

    def _promote(self) -> Flow[None]:
        revision, why = self.cursor.revision, self.cursor.reason or str(self.cursor.policy)
        evidence = {"revision": to_json(revision), "gates": to_json(self.cursor.results)}
        yield Emit(Name.ROLLOUT_PROMOTED, {"revision": revision.id})
        entry = HistoryEntry("promoted", revision.id, why, evidence)
        yield from self._save(history=entry, stage=Stage.TIDY, ticket=None)

    def _tidy(self) -> Flow[None]:
        """Drop what takes no traffic and is not kept warm; a revision that will not go is told, and costs no promotion."""
        if self.cursor.ticket is not None:
            yield from self._drop(str(self.cursor.ticket.wanted.get("revision")))
        state = yield from self._observe()
        for name in self.cursor.superfluous(state) if state else ():
            yield from self._drop(name)
        yield from self._end(Phase.SUCCEEDED, f"{self.cursor.revision.id} takes all traffic")

    def _drop(self, name: str) -> Flow[None]:
        try:
            # Promoted is promoted: an abort that comes now is not heeded.
            yield from self._carry(lambda: self._backend.drop_revision(self.cursor.endpoint.name, name), attend=False)
        except FencedError:
            raise
        except ModelDeployError as error:
            yield Emit(Name.OPERATION_PROGRESS, {"left_over": name, "error": str(error)}, Level.WARNING)
        yield from self._save(ticket=None)

    def _back(self) -> Flow[None]:
        baseline = self.cursor.baseline or Traffic()
        name, revision = self.cursor.endpoint.name, self.cursor.revision
        state = yield from self._observe()
        if state is not None and not self._is_back(state, baseline):
            yield from self._carry(lambda: self._backend.set_traffic(name, baseline), attend=False)
            yield Emit(Name.TRAFFIC_CHANGED, {"traffic": dict(baseline.live)})
        fields = {"revision": revision.id, "reason": self.cursor.reason, "traffic": dict(baseline.live)}
        yield Emit(Name.ROLLOUT_ROLLED_BACK, fields, Level.WARNING)
        evidence = {"revision": to_json(revision), "gates": to_json(self.cursor.results)}
        entry = HistoryEntry("aborted", revision.id, self.cursor.reason, evidence)
        yield from self._end(self._went_back, self.cursor.reason, history=entry)

    def _is_back(self, state: EndpointState, baseline: Traffic) -> bool:
        """Whether there is nothing to take back: the old table holds, or one that somebody else made without the new revision."""
        # What is seen while a forward step is in flight is still the old table; it must be asked for again, or the step lands.
        elsewhere = bool(state.traffic.live) and not state.traffic.share(self.cursor.revision.id)
        return self.cursor.ticket is None and state.settled and (elsewhere or state.traffic.same_as(baseline))

    def _clean(self) -> Flow[None]:
        """Leave nothing behind of a revision that never took traffic, unless it was there before."""
        reason = self.cursor.reason
        if not self.cursor.existed:
            try:
                yield from self._carry(self._removal, attend=False)
            except FencedError:
                raise
            except ModelDeployError as error:
                reason = f"{reason}; what was begun could not be removed: {error}"
        entry = HistoryEntry("refused", self.cursor.revision.id, reason)
        yield from self._end(self._went_back, reason, history=entry)

    @property
    def _went_back(self) -> Phase:
        return Phase.CANCELLED if self.cursor.aborted else Phase.FAILED

    # Traffic

    def _shift(self) -> Flow[None]:
        cursor = self.cursor
        if cursor.since is not None:
            return
        state = yield from self._observe()
        if state is None:
            message = f"endpoint {cursor.endpoint.name!r} is gone"
            raise OperationFailed(message)
        if cursor.drifted:
            yield from self._rebase(state.traffic)
        elif cursor.ticket is None:
            self._refuse_drift(state)
        table, version = self.cursor.table(self.cursor.step), state.version
        if not state.traffic.same_as(table):
            name = cursor.endpoint.name
            yield from self._carry(lambda: self._backend.set_traffic(name, table, expect=version))
            yield Emit(Name.TRAFFIC_CHANGED, {"traffic": dict(table.live)})
        at, step = (yield from now()), self.cursor.step
        yield Emit(Name.ROLLOUT_STEP, {"revision": cursor.revision.id, "percent": self.cursor.percent, "step": step})
        yield from self._save(since=at, ticket=None, drifted=False)

    def _refuse_drift(self, state: EndpointState) -> None:
        """Never overwrite what somebody else decided: the table must be the wanted one, or one that this rollout left."""
        cursor, found = self.cursor, state.traffic
        if not (found.same_as(cursor.table(cursor.step)) or cursor.left(found)):
            message = f"traffic of {state.name!r} is {found.live}"
            raise ConflictError(message, hint="rollout.resume() to go on from there, or rollout.abort()")

    def _rebase(self, found: Traffic) -> Flow[None]:
        """Take over a table that somebody else made: a user saw it and said to go on."""
        cursor, share = self.cursor, found.share(self.cursor.revision.id)
        step = len(cursor.policy.steps) - 1 if cursor.forced else cursor.first_step(share)
        baseline = cursor.baseline if share == WHOLE else found.shift(cursor.revision.id, 0)
        yield from self._save(baseline=baseline, step=step)

    # Soaking and gates

    def _soak(self) -> Flow[None]:
        policy = self.cursor.policy
        last = self.cursor.percent == WHOLE
        while True:
            if (yield from self._heed()) or self.cursor.since is None:
                return
            results, elapsed = yield from self._look()
            verdict = Verdict.PASS if self.cursor.forced else gates.overall(results)
            due = 0.0 if self.cursor.forced else (policy.bake if last else policy.soak)
            if verdict is Verdict.FAIL:
                yield from self._decide(Verdict.FAIL, results, Stage.BACK)
                return
            if elapsed >= due and (verdict is Verdict.PASS or last):
                yield from self._decide(verdict, results, Stage.WALK)
                return
            if elapsed >= max(due, policy.max_soak) and verdict is Verdict.INCONCLUSIVE:
                yield from self._undecided(results)
                return
            yield Sleep(min(policy.interval, due - elapsed) if due - elapsed > 0 else policy.interval)

    def _look(self) -> Flow[tuple[tuple[GateResult, ...], float]]:
        """Ask every gate; nothing is asked of a switch without a bake time."""
        cursor, policy = self.cursor, self.cursor.policy
        at = yield from now()
        since = at if cursor.since is None else cursor.since
        blind = cursor.percent == WHOLE and not policy.bake
        if cursor.forced or blind or not policy.gates:
            return (), at - since
        new = yield from self._window(cursor.revision.id, since, at)
        whole = cursor.percent == WHOLE
        span = (since - max(policy.bake, _BASELINE_S), since) if whole else (since, at)
        stable = (yield from self._window(cursor.stable, *span)) if cursor.stable else None
        judged = (gates.judge(gate, new, stable, min_sample=policy.min_sample) for gate in policy.gates)
        return tuple(judged), at - since

    def _window(self, revision: str, since: float, until: float) -> Flow[Window]:
        meters, name = self._backend, self.cursor.endpoint.name
        if not isinstance(meters, Meters):
            message = f"backend {self._backend.name!r} declares meters and has none"
            raise OperationFailed(message)
        return (yield from call("read metrics", lambda: meters.window(name, revision, since, until)))

    def _decide(self, verdict: Verdict, results: tuple[GateResult, ...], stage: Stage) -> Flow[None]:
        reason = "; ".join(f"{result.gate}: {result.reason}" for result in results if result.verdict is verdict)
        yield from self._tell_verdict(verdict, reason)
        if stage is Stage.BACK:
            yield from self._save(stage=stage, verdict=verdict, results=results, reason=f"gate failed: {reason}")
        else:
            yield from self._save(step=self.cursor.step + 1, since=None, verdict=verdict, results=results)

    def _undecided(self, results: tuple[GateResult, ...]) -> Flow[None]:
        """Time is up and the evidence does not suffice; the policy says what then."""
        reason = "; ".join(f"{result.gate}: {result.reason}" for result in results)
        choice = self.cursor.policy.on_inconclusive
        if choice is OnInconclusive.HOLD:
            yield from self._tell_verdict(Verdict.INCONCLUSIVE, reason)
            yield from self._hold(f"not enough evidence: {reason}", results=results, verdict=Verdict.INCONCLUSIVE)
        elif choice is OnInconclusive.PROMOTE:
            yield from self._decide(Verdict.INCONCLUSIVE, results, Stage.WALK)
        else:
            yield from self._decide(Verdict.INCONCLUSIVE, results, Stage.BACK)

    def _tell_verdict(self, verdict: Verdict, reason: str) -> Flow[None]:
        fields = {
            "revision": self.cursor.revision.id,
            "percent": self.cursor.percent,
            "verdict": verdict.value,
            "reason": reason,
        }
        yield Emit(Name.ROLLOUT_VERDICT, fields, Level.WARNING if verdict is Verdict.FAIL else Level.INFO)

    # What users say

    def _heed(self) -> Flow[bool]:
        """Do what users said since; whether it is paused by that."""
        for command in (yield from inbox(self.cursor.seen)):
            if command.verb is Verb.PAUSE:
                yield from self._hold(command.reason or f"paused by {command.who}", seen=command.number)
                return True
            if command.verb is Verb.PROMOTE:
                yield from self._force(command)
            elif command.verb in {Verb.ABORT, Verb.CANCEL}:
                yield from self._abort(command)
            else:
                yield from self._save(seen=command.number)
        return False

    def _force(self, command: Command) -> Flow[None]:
        last = len(self.cursor.policy.steps) - 1
        since = self.cursor.since if self.cursor.step == last else None
        why = command.reason or f"promoted by {command.who}"
        yield from self._save(step=last, since=since, forced=True, paused=False, reason=why, seen=command.number)

    def _abort(self, command: Command) -> Flow[None]:
        reason = command.reason or f"aborted by {command.who}"
        yield from self._save(seen=command.number, reason=reason, paused=False, aborted=True)
        raise _AbortedError

    def _hold(self, reason: str, **changes: Any) -> Flow[None]:
        yield Emit(Name.ROLLOUT_PAUSED, {"reason": reason}, Level.WARNING)
        yield from self._save(paused=True, ticket=None, outcome=f"paused: {reason}", **changes)

    def _unpaused(self) -> Flow[bool]:
        """Heed what was said while it was paused; the last word counts."""
        commands = yield from inbox(self.cursor.seen)
        wanted = [command for command in commands if command.verb is not Verb.PAUSE]
        if not wanted:
            return False
        last = wanted[-1]
        yield Emit(Name.ROLLOUT_RESUMED, {"verb": last.verb.value, "who": last.who})
        if last.verb is Verb.PROMOTE:
            yield from self._force(last)
        elif last.verb in {Verb.ABORT, Verb.CANCEL}:
            reason = last.reason or f"aborted by {last.who}"
            stage = Stage.BACK if self.cursor.stage is Stage.WALK else Stage.CLEAN
            yield from self._save(stage=stage, seen=last.number, reason=reason, paused=False, aborted=True)
        else:
            # The soak of this step starts again: what was measured before the pause answered another question.
            yield from self._save(seen=last.number, since=None, paused=False)
        return True

    # Plumbing

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

    def _observe(self) -> Flow[EndpointState | None]:
        name = self.cursor.endpoint.name
        return (yield from call("observe", lambda: self._backend.observe(name)))

    def _confirm_ready(self) -> Flow[None]:
        """Success is what is observed, not what was reported."""
        state = yield from self._observe()
        found = state.revision(self.cursor.revision.id) if state else None
        if found is None or not found.ready:
            note = found.note if found else "it is not there"
            message = f"revision {self.cursor.revision.id!r} was reported ready and is not: {note}"
            raise OperationFailed(message)

    def _removal(self) -> Ticket:
        name = self.cursor.endpoint.name
        if self.cursor.baseline is None:
            return self._backend.drop_endpoint(name)
        return self._backend.drop_revision(name, self.cursor.revision.id)

    def _save(
        self, *, phase: Phase = Phase.RUNNING, outcome: str = "", history: HistoryEntry | None = None, **changes: Any
    ) -> Flow[None]:
        self.cursor = attrs.evolve(self.cursor, **changes)
        yield Save(to_json(self.cursor), phase, outcome, history)
        self.phase = phase

    def _end(self, phase: Phase, outcome: str, history: HistoryEntry | None = None) -> Flow[None]:
        yield Emit(_END[phase], {"outcome": outcome}, Level.INFO if phase is Phase.SUCCEEDED else Level.WARNING)
        yield from self._save(phase=phase, outcome=outcome, history=history, ticket=None)


_END = {
    Phase.SUCCEEDED: Name.OPERATION_SUCCEEDED,
    Phase.FAILED: Name.OPERATION_FAILED,
    Phase.CANCELLED: Name.OPERATION_CANCELLED,
}
