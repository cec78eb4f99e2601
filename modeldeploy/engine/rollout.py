"""The flow of a rollout: make the revision ready, hold it against its golden outputs, walk the traffic, promote or go back.

Every decision is journalled before it is acted on. Resuming therefore never asks again: a rollout that was going back goes back, and a
revision that failed a gate is not sent out a second time. Each act first looks whether it is done already.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from modeldeploy.engine.cursor import RolloutCursor, Stage
from modeldeploy.engine.effects import Emit, Flow
from modeldeploy.engine.record import HistoryEntry
from modeldeploy.engine.rollout_base import AbortedError
from modeldeploy.engine.rollout_golden import Check, RolloutGolden, StagedCheck
from modeldeploy.errors import FencedError, ModelDeployError, OperationFailed
from modeldeploy.values.events import Level, Name
from modeldeploy.values.gate import Verdict
from modeldeploy.values.serving import WHOLE, EndpointState, Traffic
from modeldeploy.values.ticket import Phase, Ticket

__all__ = ["Check", "RolloutCursor", "RolloutFlow", "Stage", "StagedCheck"]


class RolloutFlow(RolloutGolden):
    """One rollout; ``run`` may be started again from any journalled cursor."""

    def run(self) -> Flow[RolloutCursor]:
        """Go on until the rollout ended or waits for a user."""
        stages: dict[Stage, Callable[[], Flow[None]]] = {
            Stage.PREPARE: self._prepare,
            Stage.CHECK: self._hold_against_golden,
            Stage.WALK: self._walk,
            Stage.PROMOTE: self._promote,
            Stage.PARK: self._park,
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
        except AbortedError:
            yield from self._save(stage=Stage.CLEAN, ticket=None)
        except ModelDeployError as error:
            yield from self._save(stage=Stage.CLEAN, ticket=None, reason=str(error))
        else:
            yield Emit(Name.REVISION_READY, {"revision": self.cursor.revision.id})
            yield from self._save(stage=Stage.CHECK, ticket=None)

    def _begin(self) -> Flow[None]:
        state = yield from self._observe()
        existed = state is not None and state.revision(self.cursor.revision.id) is not None
        yield from self._save(begun=True, baseline=state.traffic.plain if state else None, existed=existed)

    def _hold_against_golden(self) -> Flow[None]:
        revision = self.cursor.revision
        try:
            if (yield from self._heed()):
                return
            asked = yield from self._ask_golden()
        except FencedError:
            raise
        except AbortedError:
            yield from self._save(stage=Stage.CLEAN, ticket=None)
        except ModelDeployError as error:
            fields = {"revision": revision.id, "ok": False, "reason": str(error)}
            yield Emit(Name.GOLDEN_CHECKED, fields, Level.ERROR)
            yield from self._save(stage=Stage.CLEAN, ticket=None, verdict=Verdict.FAIL, reason=str(error))
        else:
            yield Emit(Name.GOLDEN_CHECKED, {"revision": revision.id, "ok": True, "asked": asked})
            yield from self._set_out()

    def _set_out(self) -> Flow[None]:
        """Choose the first step: never one that takes away a share which the revision has already."""
        if self.cursor.policy.asks_devices and self.cursor.asked is None and not (yield from self._raise_steps()):
            return
        baseline, name, steps = self.cursor.baseline, self.cursor.revision.id, self.cursor.policy.steps
        if baseline is None and self.cursor.policy.asks_devices:
            # All devices were given it; whether it stays is for them to say.
            yield from self._save(stage=Stage.WALK, step=len(steps) - 1)
        elif baseline is None:
            # A new endpoint gives everything to its first revision by itself.
            yield from self._save(stage=Stage.PROMOTE, ticket=None)
        elif baseline.share(name) == WHOLE:
            yield from self._end(Phase.SUCCEEDED, f"{name} takes all traffic already")
        elif baseline.live:
            first = max(self.cursor.step, self.cursor.first_step(baseline.share(name)))
            yield from self._save(stage=Stage.WALK, step=first, ticket=None)
        else:
            # Nobody to share with and nobody to compare with.
            yield from self._save(stage=Stage.WALK, step=len(steps) - 1, forced=True, ticket=None)

    def _raise_steps(self) -> Flow[bool]:
        """Make each step so large that its ring can vote; whether the devices could be read."""
        from modeldeploy.engine import rings  # for fleets alone
        from modeldeploy.values.edge import raised

        asked = self.cursor.policy
        try:
            devices = yield from rings.fleet(self._backend, self.cursor.endpoint.name)
        except FencedError:
            raise
        except ModelDeployError as error:
            yield from self._save(stage=Stage.CLEAN, reason=f"the devices cannot be read: {error}")
            return False
        steps = raised(asked.steps, devices, asked.min_devices)
        if steps != asked.steps:
            note = f"the steps are {steps}, so that each ring holds {asked.min_devices} reachable devices"
            yield Emit(Name.OPERATION_PROGRESS, {"note": note})
        yield from self._save(policy=attrs.evolve(asked, steps=steps), asked=asked)
        return True

    def _promote(self) -> Flow[None]:
        why = self.cursor.reason or str(self.cursor.policy)
        yield Emit(Name.ROLLOUT_PROMOTED, {"revision": self.cursor.revision.id})
        yield from self._save(history=self._entry("promoted", why), stage=Stage.TIDY, ticket=None)

    def _park(self) -> Flow[None]:
        """End a shadow that is not promoted: no more copies, and the revision stays warm."""
        yield from self._restore()
        outcome = f"{self.cursor.revision.id} stood by as a shadow; it is warm and takes no traffic"
        entry = self._entry("shadowed", self.cursor.reason or str(self.cursor.policy))
        yield from self._end(Phase.SUCCEEDED, outcome, history=entry)

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
        reason, baseline = self.cursor.reason, (yield from self._restore())
        fields = {"revision": self.cursor.revision.id, "reason": reason, "traffic": dict(baseline.live)}
        yield Emit(Name.ROLLOUT_ROLLED_BACK, fields, Level.WARNING)
        yield from self._end(self._went_back, reason, history=self._entry("aborted", reason))

    def _restore(self) -> Flow[Traffic]:
        """Bring the table back that held before, if it does not hold already."""
        baseline, name = self.cursor.baseline or Traffic(), self.cursor.endpoint.name
        state = yield from self._observe()
        if state is not None and not self._is_back(state, baseline):
            yield from self._carry(lambda: self._backend.set_traffic(name, baseline), attend=False)
            yield Emit(Name.TRAFFIC_CHANGED, {"traffic": dict(baseline.live), "copies": baseline.copies})
        return baseline

    def _is_back(self, state: EndpointState, baseline: Traffic) -> bool:
        """Whether there is nothing to take back: the old table holds, or one that somebody else made without the new revision."""
        # What is seen while a forward step is in flight is still the old table; it must be asked for again, or the step lands.
        name = self.cursor.revision.id
        elsewhere = bool(state.traffic.live) and not (state.traffic.share(name) or state.traffic.copies.get(name))
        return self.cursor.ticket is None and state.settled and (elsewhere or state.traffic.same_as(baseline))

    def _clean(self) -> Flow[None]:
        """Leave nothing behind of a revision that never took traffic, unless it was there before."""
        reason = self.cursor.reason
        for leave in (self._leave_staging, self._leave_endpoint):
            try:
                yield from leave()
            except FencedError:
                raise
            except ModelDeployError as error:
                reason = f"{reason}; what was begun could not be removed: {error}"
                yield from self._save(ticket=None)
        entry = HistoryEntry("refused", self.cursor.revision.id, reason)
        yield from self._end(self._went_back, reason, history=entry)

    def _leave_endpoint(self) -> Flow[None]:
        if not self.cursor.existed:
            yield from self._carry(self._removal, attend=False)

    @property
    def _went_back(self) -> Phase:
        return Phase.CANCELLED if self.cursor.aborted else Phase.FAILED

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
