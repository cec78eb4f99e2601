"""Walking the traffic: shift, soak, look, decide; one step of the policy after the other."""

from __future__ import annotations

import attrs

from modeldeploy.engine import gates
from modeldeploy.engine.cursor import Stage
from modeldeploy.engine.effects import Emit, Flow, Sleep, now
from modeldeploy.engine.evidence import Evidence
from modeldeploy.engine.rollout_base import AbortedError, RolloutBase
from modeldeploy.errors import ConflictError, FencedError, ModelDeployError, OperationFailed
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Level, Name
from modeldeploy.values.gate import GateResult, Verdict
from modeldeploy.values.rollout import OnFailure, OnInconclusive
from modeldeploy.values.serving import WHOLE, EndpointState, Traffic

_TOLD_SHARE = 0.01
"""A look without news is written down when this share of the step's time has passed since the last one: a few hundred for each step."""


class RolloutWalk(RolloutBase):
    """The stage in which the new revision takes traffic."""

    def _walk(self) -> Flow[None]:
        while self.cursor.stage is Stage.WALK and not self.cursor.paused:
            try:
                if self.cursor.step >= len(self.cursor.policy.steps):
                    yield from self._arrive()
                    continue
                if self._condemned:
                    yield from self._take_back(self.cursor.results)
                    continue
                # A table in flight lands first: its ticket is of this step, whatever users wish to come next.
                if self.cursor.ticket is None and (yield from self._heed()):
                    continue
                yield from self._shift()
                yield from self._soak()
            except FencedError:
                raise
            except AbortedError:
                yield from self._save(stage=self.cursor.retreat, ticket=None)
            except ConflictError as error:
                yield from self._hold(f"traffic was changed by somebody else: {error}", drifted=True)
            except ModelDeployError as error:
                yield from self._failed(error)

    @property
    def _condemned(self) -> bool:
        """Whether a gate failed and the driver ended before it acted on that: the gates are not asked again."""
        asked = self.cursor.since is not None and not self.cursor.forced
        return asked and gates.overall(self.cursor.results) is Verdict.FAIL

    def _arrive(self) -> Flow[None]:
        """End the walk if the table of its last step still holds; what somebody else took back is not promoted."""
        last, state = len(self.cursor.policy.steps) - 1, (yield from self._existing())
        if not state.traffic.same_as(self.cursor.table(last)):
            yield from self._save(step=last)
            self._refuse_other_table(state)
        yield from self._save(stage=Stage.PROMOTE if self.cursor.policy.promotes else Stage.PARK)

    def _failed(self, error: ModelDeployError) -> Flow[None]:
        """Do what the policy says when the provider failed for good."""
        reason = f"the provider failed: {error}"
        if self.cursor.policy.on_failure in {OnFailure.HOLD, OnFailure.HALT}:
            yield from self._hold(reason)
        else:
            yield from self._save(stage=self.cursor.retreat, ticket=None, reason=reason)

    # Traffic

    def _shift(self) -> Flow[None]:
        cursor = self.cursor
        if cursor.since is not None:
            return
        state = yield from self._existing()
        if cursor.drifted:
            yield from self._rebase(state.traffic)
        elif cursor.ticket is None:
            self._refuse_drift(state)
        table, version = self.cursor.table(self.cursor.step), state.version
        changed, name = not state.traffic.same_as(table), cursor.endpoint.name
        if changed or self._asks_again:
            yield from self._carry(lambda: self._backend.set_traffic(name, table, expect=version))
        if changed:
            yield Emit(Name.TRAFFIC_CHANGED, {"traffic": dict(table.live), "copies": table.copies})
        at, step = (yield from now()), self.cursor.step
        yield Emit(Name.ROLLOUT_STEP, {"revision": cursor.revision.id, "percent": self.cursor.percent, "step": step})
        yield from self._save(since=at, reached=step, ticket=None, drifted=False)

    @property
    def _asks_again(self) -> bool:
        """Whether a user let a ring go on after it halted: devices that refused what they are told try it once more."""
        return self.cursor.policy.asks_devices and self.cursor.reached == self.cursor.step

    def _existing(self) -> Flow[EndpointState]:
        state = yield from self._observe()
        if state is None:
            message = f"endpoint {self.cursor.endpoint.name!r} is gone"
            raise OperationFailed(message)
        return state

    def _refuse_drift(self, state: EndpointState) -> None:
        """Never overwrite what somebody else decided: the table must be the wanted one, or the one that this rollout left."""
        if not self.cursor.left(state.traffic):
            self._refuse_other_table(state)

    def _refuse_other_table(self, state: EndpointState) -> None:
        if not state.traffic.same_as(self.cursor.table(self.cursor.step)):
            message = f"traffic of {state.name!r} is {state.traffic.live}"
            raise ConflictError(message, hint="rollout.resume() to go on from there, or rollout.abort()")

    def _rebase(self, found: Traffic) -> Flow[None]:
        """Take over a table that somebody else made: a user saw it and said to go on."""
        cursor, share = self.cursor, found.share(self.cursor.revision.id)
        step = len(cursor.policy.steps) - 1 if cursor.forced else cursor.first_step(share)
        baseline = cursor.baseline if share == WHOLE else found.plain.shift(cursor.revision.id, 0)
        yield from self._save(baseline=baseline, step=step, reached=None)

    # Soaking and gates

    # What judges a canary is loaded with the first look; a first revision needs no judge.

    def _soak(self) -> Flow[None]:
        from modeldeploy.engine.looking import BlindError

        while True:
            if (yield from self._heed()) or self.cursor.since is None:
                return
            at = yield from now()
            elapsed = at - self.cursor.since
            try:
                results = yield from self._look(at, elapsed)
            except BlindError as error:
                results = (GateResult("metrics", Verdict.BLIND, reason=str(error)),)
            wait = yield from self._judge(results, at, elapsed)
            if wait is None:
                return
            yield Sleep(wait)

    def _judge(self, results: tuple[GateResult, ...], at: float, elapsed: float) -> Flow[float | None]:
        """Act on a look: decide and give None, or give the seconds until the next one."""
        from modeldeploy.engine import sequential

        policy, last, whole = self.cursor.policy, self._is_last, self.cursor.percent == WHOLE
        due = 0.0 if self.cursor.forced else (self._bake if whole else policy.soak)
        verdict = Verdict.PASS if self.cursor.forced else gates.overall(results)
        broken = sequential.ratio_broken(self.cursor.evidence) if policy.gates and not self.cursor.forced else None
        if verdict is Verdict.FAIL:
            yield from self._take_back(results)
        elif verdict is Verdict.BLIND:
            return (yield from self._grope(results, at))
        elif broken:
            yield from self._tell_ratio(broken)
            yield from self._undecided(results, f"the traffic is not split as it should be: {broken}")
        elif elapsed >= due and (verdict is Verdict.PASS or (last and whole and not policy.asks_devices)):
            yield from self._pass(verdict, results)
        elif elapsed >= max(due, policy.max_soak) and verdict is Verdict.INCONCLUSIVE:
            yield from self._undecided(results, f"not enough evidence: {_said(results)}")
        else:
            return min(policy.interval, due - elapsed) if due - elapsed > 0 else policy.interval
        return None

    @property
    def _bake(self) -> float:
        """The time at 100 %: until as much of it lies in slots of the metrics that are over, so that gates see it."""
        bake, capabilities = self.cursor.policy.bake, self._backend.capabilities
        if not (bake and self.cursor.policy.gates):
            return bake
        # The slot that is not over; and the first one, where it cannot be told from what was before.
        slots = 1 if capabilities.meters_by_share else 2
        return bake + capabilities.meter_resolution * slots + capabilities.meter_delay

    @property
    def _is_last(self) -> bool:
        return self.cursor.step == len(self.cursor.policy.steps) - 1

    def _look(self, at: float, elapsed: float) -> Flow[tuple[GateResult, ...]]:
        """Ask every gate, or the devices; nothing is asked of a switch without a bake time."""
        cursor, policy = self.cursor, self.cursor.policy
        unwatched = not policy.gates or (cursor.percent == WHOLE and not policy.bake)
        if cursor.forced or (unwatched and not policy.asks_devices):
            return ()
        evidence, results = yield from self._seen(at, elapsed)
        if gates.overall(results) is not Verdict.BLIND:
            evidence = attrs.evolve(evidence, blind=None)
        if self._is_news(results, at, elapsed):
            yield from self._tell_look(results, elapsed)
            evidence = attrs.evolve(evidence, told=at)
        if evidence != cursor.evidence or gates.overall(results) is not gates.overall(cursor.results):
            yield from self._save(evidence=evidence, results=results)
        return results

    def _seen(self, at: float, elapsed: float) -> Flow[tuple[Evidence, tuple[GateResult, ...]]]:
        cursor = self.cursor
        if cursor.policy.asks_devices:
            from modeldeploy.engine import rings

            return cursor.evidence, ((yield from rings.ask(self._backend, cursor)),)
        from modeldeploy.engine.looking import Looker

        evidence, results = yield from Looker(self._backend, cursor).look(at, at - elapsed)
        if evidence.upto > cursor.evidence.upto and evidence.here == cursor.evidence.here:
            # Nothing came under this table: perhaps it is another one by now.
            self._refuse_other_table((yield from self._existing()))
        return evidence, results

    def _is_news(self, results: tuple[GateResult, ...], at: float, elapsed: float) -> bool:
        known, since = self.cursor.results, at - self.cursor.evidence.told
        if [each.verdict for each in results] != [each.verdict for each in known]:
            return True
        return results != known and since >= max(self.cursor.policy.interval, _TOLD_SHARE * elapsed) - _CLOCK_S

    def _tell_look(self, results: tuple[GateResult, ...], elapsed: float) -> Flow[None]:
        cursor = self.cursor
        fields = {
            "revision": cursor.revision.id,
            "stable": cursor.stable,
            "step": cursor.step,
            "percent": cursor.percent,
            "elapsed": elapsed,
            "verdict": gates.overall(results).value,
            "gates": to_json(results),
        }
        yield Emit(Name.ROLLOUT_LOOK, fields, Level.DEBUG)

    # Deciding

    def _pass(self, verdict: Verdict, results: tuple[GateResult, ...]) -> Flow[None]:
        if not results:
            # Nobody was asked; what the gates said before stands.
            yield from self._next(self.cursor.step + 1)
            return
        yield from self._tell_verdict(verdict, _said(results, verdict))
        yield from self._next(self.cursor.step + 1, verdict=verdict, results=results)

    def _take_back(self, results: tuple[GateResult, ...]) -> Flow[None]:
        reason = _said(results, Verdict.FAIL)
        yield from self._tell_verdict(Verdict.FAIL, reason)
        what = "ring" if self.cursor.policy.asks_devices else "gate"
        yield from self._leave(f"{what} failed: {reason}", results, Verdict.FAIL)

    def _leave(self, reason: str, results: tuple[GateResult, ...], verdict: Verdict) -> Flow[None]:
        """Go back to stable, unless stable is the one that does not serve; or halt, so that nothing spreads and a user decides."""
        if self.cursor.policy.on_failure is OnFailure.HALT:
            yield from self._hold(reason, verdict=verdict, results=results)
            return
        state = yield from self._observe()
        stable = state.revision(self.cursor.stable) if state is not None and self.cursor.stable else None
        if stable is not None and not stable.ready:
            why = f"{reason}; stable {stable.revision.id} does not serve ({stable.note}), so going back would not help"
            yield from self._hold(why, verdict=verdict, results=results)
        else:
            yield from self._save(stage=self.cursor.retreat, verdict=verdict, results=results, reason=reason)

    def _undecided(self, results: tuple[GateResult, ...], reason: str) -> Flow[None]:
        """Time is up and the evidence does not suffice; the policy says what then."""
        choice = self.cursor.policy.on_inconclusive
        yield from self._tell_verdict(Verdict.INCONCLUSIVE, reason)
        if choice is OnInconclusive.HOLD:
            yield from self._hold(reason, results=results, verdict=Verdict.INCONCLUSIVE)
        elif choice is OnInconclusive.PROMOTE:
            yield from self._next(self.cursor.step + 1, verdict=Verdict.INCONCLUSIVE, results=results)
        else:
            yield from self._leave(reason, results, Verdict.INCONCLUSIVE)

    def _grope(self, results: tuple[GateResult, ...], at: float) -> Flow[float | None]:
        """Hold the traffic where it is while the metrics cannot be read; after ``blind_limit`` go back to stable."""
        policy, since, reason = self.cursor.policy, self.cursor.evidence.blind, _said(results, Verdict.BLIND)
        if since is None:
            since = at
            yield Emit(Name.ROLLOUT_BLIND, {"revision": self.cursor.revision.id, "reason": reason}, Level.WARNING)
            evidence = attrs.evolve(self.cursor.evidence, blind=at)
            yield from self._save(evidence=evidence, results=results, verdict=Verdict.BLIND)
        if at - since < policy.blind_limit:
            return policy.interval
        yield from self._tell_verdict(Verdict.BLIND, reason)
        why = f"the metrics could not be read for {policy.blind_limit:g} s: {reason}"
        yield from self._leave(why, results, Verdict.BLIND)
        return None

    def _tell_verdict(self, verdict: Verdict, reason: str) -> Flow[None]:
        fields = {
            "revision": self.cursor.revision.id,
            "percent": self.cursor.percent,
            "verdict": verdict.value,
            "reason": reason,
        }
        yield Emit(Name.ROLLOUT_VERDICT, fields, Level.WARNING if verdict is Verdict.FAIL else Level.INFO)

    def _tell_ratio(self, reason: str) -> Flow[None]:
        yield Emit(Name.ROLLOUT_SAMPLE_RATIO, {"revision": self.cursor.revision.id, "reason": reason}, Level.WARNING)


_CLOCK_S = 1e-6


def _said(results: tuple[GateResult, ...], verdict: Verdict | None = None) -> str:
    """Tell what the gates said, or those of one verdict."""
    return "; ".join(
        f"{each.gate}: {each.reason}" if each.reason else each.gate
        for each in results
        if verdict in {None, each.verdict}
    )
