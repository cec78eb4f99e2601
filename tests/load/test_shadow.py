"""A shadow under load: its answers go nowhere, and neither does its time."""

from __future__ import annotations

import statistics
import sys

import pytest

from modeldeploy import RolloutPolicy
from modeldeploy.errors import RolloutAborted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")

STABLE_S, SHADOW_S = 0.03, 0.6
WAIT_S = 90.0


def test_callers_do_not_feel_a_shadow_that_is_slow_and_wrong(stage):
    # Stable sleeps and has a worker for each caller, so that its times hardly depend on how busy the machine is.
    endpoint = stage.serve(stage.faulty(0, 0.0, seconds=STABLE_S), workers=4)
    table = endpoint.traffic
    shadow = stage.model(stage.faulty(1, 0.0, seconds=SHADOW_S, wrong=1.0), endpoint.name)
    policy = RolloutPolicy.shadow(100, soak=1.0, gates=["disagreement <= 5%"], interval=0.2)
    # The same seed makes the same requests in the same order.
    with stage.callers(endpoint, 4, pace=0.002, seed=7) as alone:
        stage.wait_until(lambda: alone.count >= 200, timeout=WAIT_S)
    with stage.callers(endpoint, 4, pace=0.002, seed=7) as shadowed:
        rollout = endpoint.rollout(shadow, policy, wait=False)
        with pytest.raises(RolloutAborted, match="disagreement"):
            rollout.wait(WAIT_S)
        stage.wait_until(lambda: shadowed.count >= 200, timeout=WAIT_S)
    assert endpoint.traffic == table

    (gate,) = rollout.gates
    assert gate.value == 1.0
    expected = {each.draws: each.body for each in alone.answers}
    found = {each.draws: each.body for each in shadowed.answers if each.draws in expected}
    assert len(found) >= 200
    assert found == {draws: expected[draws] for draws in found}
    assert {(each.status, each.revision) for each in shadowed.answers} == {(200, next(iter(table)))}

    copied = _while_copied(rollout, shadowed)
    assert len(copied) >= 20
    before = [each.seconds for each in alone.answers]
    # A caller who waited for one copy, or for its turn behind one, would wait twenty times as long.
    assert statistics.median(copied) <= 1.5 * statistics.median(before)
    assert _p99(copied) <= max(1.5 * _p99(before), SHADOW_S / 2)


def _while_copied(rollout, load):
    """Give the times of what was asked while every request was copied."""
    events = rollout.operation.events()
    (since, until, *_) = [event.at for event in events if event.name.value == "traffic.changed"]
    return [each.seconds for each in load.answers if since < each.at < until]


def _p99(seconds):
    return statistics.quantiles(seconds, n=100)[98]
