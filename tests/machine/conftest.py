"""The rules of the town: each effect of a driver is held against them.

Nothing of the engine's own book-keeping is trusted where the town can count for itself.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from modeldeploy.engine.effects import Emit
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.engine.rollout import RolloutCursor, Stage
from modeldeploy.values.codec import from_json
from modeldeploy.values.events import Event, Name
from modeldeploy.values.gate import Metric, Verdict
from modeldeploy.values.rollout import OnInconclusive
from modeldeploy.values.serving import WHOLE, Traffic


def _load(name: str) -> Any:
    """Load a file beside this one: tests are no package that it could be imported from."""
    spec = importlib.util.spec_from_file_location(f"machine_{name}", Path(__file__).with_name(f"{name}.py"))
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ground = _load("town")
SPEC, Case, Driver = ground.SPEC, ground.Case, ground.Driver


class Town(ground.Town):
    """One endpoint, all who act on it, and what always holds."""

    def _heard(self, driver: Driver, effect: Emit) -> None:
        driver.said.append(Event(effect.name, self.clock.now(), driver.operation, effect.level, effect.fields))
        case = self.cases[driver.operation]
        if effect.name is Name.ROLLOUT_STEP:
            case.step_at = self.answered[effect.fields["revision"]]
        if effect.fields.get("left_over"):
            self.left_over.add(effect.fields["left_over"])
        if effect.name is Name.ROLLOUT_VERDICT and not self._by_hand(case):
            self._weigh(case, Verdict(effect.fields["verdict"]))

    def _by_hand(self, case: Case) -> bool:
        """Whether anything but metrics decides."""
        policy = self.cursor(case.record).policy
        return any(gate.metric in {Metric.CUSTOM, Metric.OUTCOME} for gate in policy.gates)

    def _weigh(self, case: Case, verdict: Verdict) -> None:
        cursor = self.cursor(self.journal.read(case.record.id))
        policy, name = cursor.policy, cursor.revision.id
        if verdict is Verdict.PASS and policy.gates and not (cursor.forced or Verb.PROMOTE in case.told):
            assert not self.weather.gap, "passed blindly"
            assert self.answered[name] - case.step_at >= policy.min_sample, "passed without evidence"
        if verdict is Verdict.FAIL:
            assert not self.weather.gap, "failed blindly"
            assert self.answered[name], "failed without a single answer"

    def _saved(self, driver: Driver, before: Record) -> None:
        said, driver.said = driver.said, []
        record = self.journal.read(driver.operation)
        self._reigns(record, before)
        if record.kind is not Kind.ROLLOUT:
            return
        case, old, new = self.cases[record.id], self.cursor(before), self.cursor(record)
        self._goes_forward(case, old, new, said)
        self._counts_once(case, old, new)
        if old.stage in {Stage.BACK, Stage.CLEAN}:
            assert new.stage is old.stage, f"{old.stage} became {new.stage}"
        if case.failed:
            assert new.verdict is Verdict.FAIL, "a failure was forgotten"
        if new.verdict is Verdict.FAIL and (new.stage is Stage.BACK or new.paused) and not case.failed:
            case.failed = True
            self.banned[new.revision.id] = self.target.share(new.revision.id) if self.target else 0
        if record.phase.ended and case.failed and new.revision.id in self.banned:
            share = new.baseline.share(new.revision.id) if new.baseline else 0
            self.banned[new.revision.id] = min(share, self.banned[new.revision.id])

    def _goes_forward(self, case: Case, old: RolloutCursor, new: RolloutCursor, said: list[Event]) -> None:
        """A step is left for a reason: evidence, no gates, a user's word, or a policy that says so."""
        if new.step <= old.step or old.stage is not Stage.WALK or not new.policy.gates:
            return
        verdicts = {event.fields["verdict"] for event in said if event.name is Name.ROLLOUT_VERDICT}
        promotes = new.policy.on_inconclusive is OnInconclusive.PROMOTE
        whole = old.percent == WHOLE and not (verdicts & {"fail", "blind"})
        reasons = (
            "pass" in verdicts,
            "inconclusive" in verdicts and promotes,
            whole,
            Verb.SKIP in case.told,
            new.forced and Verb.PROMOTE in case.told,
            old.drifted,
        )
        assert any(reasons), f"step {old.step} became {new.step} without a reason: {verdicts}"

    def _counts_once(self, case: Case, old: RolloutCursor, new: RolloutCursor) -> None:
        """No request is counted twice, and what was counted is kept."""
        assert new.evidence.upto >= old.evidence.upto
        assert new.seen >= old.seen
        name = new.revision.id
        for event, strata in new.evidence.strata.items():
            for stratum in strata:
                # The towns' shadows copy a percentage that is no step of theirs.
                share = 0 if stratum.new_share == new.policy.copies else stratum.new_share
                # The first slot may hold what was answered under the same share just before.
                slot = round(200 * self.backend.capabilities.meter_resolution)
                given = self.given[name, share] - case.ledger[name, share] + slot
                assert self._coarse or stratum.new_seen <= given, f"{event} counted {stratum} of {given}"
            before = old.evidence.strata.get(event, ())
            assert sum(each.new_seen for each in strata) >= sum(each.new_seen for each in before)

    @property
    def _coarse(self) -> bool:
        """Whether the backend cannot tell the shares apart."""
        return not self.backend.capabilities.meters_by_share

    def _reigns(self, record: Record, before: Record) -> None:
        """Note who has all traffic by right, from the history."""
        if not record.phase.ended or before.phase.ended:
            self._promoted(record, before)
            return
        if record.kind is Kind.DELETE and record.phase.value == "succeeded":
            self.reign = self.copier = None
            self.banned.clear()
            self.left_over.clear()
        if record.kind is Kind.ROLLBACK and record.phase.value == "succeeded":
            wanted = from_json(RollbackCursor, record.cursor).revision.id
            # Somebody else may have been quicker than the word that it is done.
            self.reign = wanted if self.target is not None and wanted in self.target.live else self.reign
            self.copier = None
        if record.kind is Kind.ROLLOUT:
            self._ended(record)
        elif record.phase.value != "succeeded" and self.target is not None:
            # What was begun and failed has left a table that somebody asked for.
            self.reign = max(self.target.live, key=lambda name: self.target.live[name], default=None)

    def _promoted(self, record: Record, before: Record) -> None:
        moved = record.kind is Kind.ROLLOUT and record.cursor["stage"] == "tidy" and before.cursor["stage"] == "promote"
        if moved and not self.foreign:
            self.reign = self.cursor(record).revision.id

    def _ended(self, record: Record) -> None:
        cursor, state = self.cursor(record), self.backend.observe(SPEC.name)
        if self.copier == record.id:
            self.copier = None
        backs = cursor.stage in {Stage.BACK, Stage.PARK}
        if backs and self.target is not None and self.reign not in self.target.live:
            # Somebody else decided in the midst of it; who goes back wants what was there before.
            self.reign = cursor.stable
        if cursor.stage is Stage.TIDY and state is not None and not self.foreign:
            idle = [each for each in self.there if not state.traffic.share(each) and each not in self.left_over]
            assert len(idle) <= cursor.keep, f"{idle} were left behind"
        if cursor.stage is Stage.CLEAN and not cursor.existed and "could not be removed" not in record.outcome:
            assert cursor.revision.id not in self.there, "a refused revision was left behind"

    def _look(self, record: Record) -> None:
        """Hold the endpoint against the rules, after each effect."""
        self._check_writes(record)
        target = self.target
        if target is None:
            return
        live = target.live
        assert sum(live.values()) in {0, WHOLE}
        if not live:
            assert self.reign is None, "the endpoint lost all its traffic"
            return
        for name, most in self.banned.items():
            share = live.get(name, 0)
            assert share <= most, f"{name} failed a gate and takes {share} % again"
            self.banned[name] = most
        if self.reign is not None and self.reign not in live:
            self._check_interregnum()
        if target.copies:
            assert self.copier is not None, f"copies flow to {target.copies} for nobody"

    def _check_interregnum(self) -> None:
        """Stable has nothing: only at the last step, on the way back from it, or under a rollback."""
        record = self.active
        assert record is not None, f"{self.reign} lost its traffic"
        if record.kind is Kind.ROLLOUT:
            cursor = self.cursor(record)
            late = {Stage.PROMOTE, Stage.TIDY, Stage.BACK}
            assert cursor.percent == WHOLE or cursor.stage in late or cursor.stable != self.reign, (
                f"{self.reign} has nothing"
            )

    def _check_writes(self, record: Record) -> None:
        """Each table that a driver writes is the one that its cursor names."""
        new = self.backend.writes[self.written :]
        self.written = len(self.backend.writes)
        for write in new:
            if write.verb == "drop-endpoint":
                self.reign = self.copier = None
                self.banned.clear()
            if write.verb != "set-traffic":
                continue
            table = from_json(Traffic, json.loads(write.detail))
            if record.kind is Kind.ROLLBACK:
                assert table.live == {from_json(RollbackCursor, record.cursor).revision.id: WHOLE}
                continue
            cursor = self.cursor(record)
            if cursor.stage is Stage.WALK:
                assert table.same_as(cursor.table(cursor.step)), "another table than its step's"
                assert not self.foreign, "somebody else's table was overwritten"
            else:
                assert table.same_as(cursor.baseline or Traffic()), "another table than the one before"
            self.copier = record.id if table.copies else self.copier


@pytest.fixture(scope="session")
def town():
    """Give the class of towns."""
    return Town
