"""Rollouts that copy requests, and rollouts that ask whose answers are better."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.values.gate import Gate
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Phase

ERRORS = "error_rate <= 1%"

# ---------------------------------------------------------------- shadows


def test_a_shadow_that_agrees_is_kept_warm_without_traffic(serving, v1, v2):
    record = serving.rollout(v2, RolloutPolicy.shadow(20, gates=["disagreement <= 5%"], interval=5.0))
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v1.id: 100}
    assert serving.state.traffic.copies == {}
    assert serving.there == [v1.id, v2.id]
    assert serving.history() == [("shadowed", v2.id)]
    (stratum,) = serving.cursor(record).evidence.strata["disagreement <= 5%"]
    assert (stratum.new_share, stratum.stable_share) == (20, 0)
    assert stratum.new_seen == pytest.approx(1_200, abs=20)


def test_a_shadow_that_disagrees_takes_no_traffic(serving, v1, v2):
    serving.differs[v2.id] = 0.3
    policy = RolloutPolicy.shadow(20, gates=["disagreement <= 5%"], then=(50,), interval=5.0)
    ended = serving.drive(serving.rollout(v2, policy))
    assert ended.phase is Phase.FAILED
    assert "answers differ from stable's" in ended.outcome
    assert (serving.live, serving.state.traffic.copies) == ({v1.id: 100}, {})
    assert not any(table for table in serving.tables if f'"{v2.id}": 50' in table)


def test_a_shadow_is_followed_by_the_canary_that_was_asked_for(serving, v2):
    policy = RolloutPolicy.shadow(20, gates=["disagreement <= 5%"], then=(50,), interval=5.0)
    record = serving.rollout(v2, attrs.evolve(policy, gates=(*policy.gates, Gate.parse(ERRORS))))
    paused = serving.drive(record)
    shares = [(each.new_share, each.stable_share) for each in serving.cursor(record).evidence.strata[ERRORS]]
    assert shares[:2] == [(20, 100), (50, 50)]
    assert paused.phase in {Phase.SUCCEEDED, Phase.RUNNING}


# ---------------------------------------------------------------- outcomes


AB = RolloutPolicy.ab_test(50, key="header:user", until=300.0, interval=10.0)


def outcomes(scene, record, means, each=400):
    """Every other answer is a success, or as often as ``means`` says."""
    rows = [
        (f"{name}-{unit}", name, float((unit * 7919 % 1000) / 1000 < mean))
        for name, mean in means.items()
        for unit in range(each)
    ]
    scene.after(20, lambda: scene.journal.record_outcomes(record.id, rows))


def test_the_revision_with_the_better_outcomes_takes_all_traffic(serving, v1, v2):
    record = serving.rollout(v2, AB)
    outcomes(serving, record, {v1.id: 0.3, v2.id: 0.6})
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}
    (result,) = serving.cursor(record).results
    assert result.low > 0


def test_the_revision_with_the_worse_outcomes_gives_everything_back(serving, v1, v2):
    record = serving.rollout(v2, AB)
    outcomes(serving, record, {v1.id: 0.6, v2.id: 0.3})
    assert serving.drive(record).phase is Phase.FAILED
    assert serving.live == {v1.id: 100}


@pytest.mark.parametrize(
    ("choice", "phase", "share"),
    [("hold", Phase.RUNNING, 50), ("rollback", Phase.FAILED, 0), ("promote", Phase.SUCCEEDED, 100)],
)
def test_a_test_that_nobody_wins_ends_as_the_policy_says(serving, v1, v2, choice, phase, share):  # noqa: PLR0917
    record = serving.rollout(v2, attrs.evolve(AB, on_inconclusive=type(AB.on_inconclusive)(choice)))
    outcomes(serving, record, {v1.id: 0.5, v2.id: 0.5})
    began = serving.clock.now()
    assert serving.drive(record).phase is phase
    assert serving.clock.now() - began >= 300
    assert serving.live.get(v2.id, 0) == share


def test_few_outcomes_decide_nothing(serving, v1, v2):
    record = serving.rollout(v2, AB)
    outcomes(serving, record, {v1.id: 0.0, v2.id: 1.0}, each=20)
    paused = serving.drive(record)
    assert paused.paused
    assert "20 and 20 outcomes" in paused.outcome
