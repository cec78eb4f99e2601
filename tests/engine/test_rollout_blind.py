"""Rollouts whose gates see nothing: they hold, and go back when that lasts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modeldeploy.values.gate import Gate, Verdict
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Phase


def breaks(look):
    message = f"nobody can tell at {look.percent} %"
    raise LookupError(message)


def test_a_function_that_only_breaks_sends_the_traffic_back_after_the_limit(serving, v1, v2):
    """Each look at which the other metrics can be read must not begin the time anew."""
    began = serving.clock.now()
    policy = RolloutPolicy.canary((10,), soak=5, gates=[Gate.custom(breaks)], blind_limit=30, max_soak=20)
    record = serving.drive(serving.rollout(v2, policy))
    assert record.phase is Phase.FAILED
    assert serving.live == {v1.id: 100}
    assert serving.cursor(record).verdict is Verdict.BLIND
    assert 30 <= serving.clock.now() - began < 35
    assert serving.names().count("rollout.blind") == 1


def test_the_limit_begins_anew_after_a_look_that_saw(serving, v2):
    answers = iter([None, *[LookupError()] * 20, True, *[LookupError()] * 20])

    def flickers(look):
        answer = next(answers, True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    policy = RolloutPolicy.canary((10,), soak=30, gates=[Gate.custom(flickers)], blind_limit=25, interval=1)
    record = serving.drive(serving.rollout(v2, policy))
    assert record.phase is Phase.SUCCEEDED, record.outcome
    assert serving.names().count("rollout.blind") == 2


@pytest.mark.parametrize("answer", ["no", "fail", math.nan, 0.7, [], (True, "why", "more"), ()], ids=str)
def test_a_function_that_answers_neither_yes_nor_no_sees_nothing(serving, v1, v2, answer):
    policy = RolloutPolicy.canary((10,), soak=1, gates=[lambda _look: answer], blind_limit=3)
    record = serving.drive(serving.rollout(v2, policy))
    assert serving.live == {v1.id: 100}
    assert serving.cursor(record).verdict is Verdict.BLIND


@pytest.mark.parametrize("answer", [True, 1, np.True_, Verdict.PASS, (True, "why")], ids=repr)
def test_every_kind_of_yes_is_one(serving, v2, answer):
    policy = RolloutPolicy.canary((10,), soak=1, gates=[lambda _look: answer], blind_limit=3)
    serving.drive(serving.rollout(v2, policy))
    assert serving.live == {v2.id: 100}
