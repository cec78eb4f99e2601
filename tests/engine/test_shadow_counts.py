"""A shadow that cannot keep up: copies that were dropped are no evidence of anything."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.engine.evidence import Evidence, Interval, count, events_of
from modeldeploy.testing.faults import FaultyBackend
from modeldeploy.values.gate import Gate
from modeldeploy.values.metrics import Window
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import Payload
from modeldeploy.values.ticket import Phase

ERRORS = Gate.parse("error_rate <= 1%")


def window(name, requests, **more):
    return Window(name, 0, 1, requests=requests, assigned=requests, **more)


@pytest.mark.parametrize("copied", [True, False])
def test_only_a_split_is_held_against_its_weights(copied):
    nobody = Window("old", 0, 1)
    interval = Interval((50, 50), window("new", 10), window("old", 1000), nobody, copied=copied)
    found = count(Evidence(), interval, events_of(ERRORS))
    assert bool(found.assigned) is not copied


class Swamped(FaultyBackend):
    """Answers one copy in ten and drops the others."""

    def window(self, endpoint, revision, since, until, *, share=None):
        seen = super().window(endpoint, revision, since, until, share=share)
        if share != 0:
            return seen
        sent = int(seen.compared / 10)
        return attrs.evolve(
            seen, requests=sent, compared=sent, dropped=seen.compared - sent, latency={"0": sent} if sent else {}
        )


def test_dropped_copies_neither_hold_a_shadow_nor_speak_for_it(serving, v2):
    def ask(seconds):
        for _request in range(round(50 * seconds)):
            serving.backend.invoke("iris", Payload(b"{}"), timeout=1)

    serving.clock.flow = ask
    policy = RolloutPolicy.shadow(100, soak=10, gates=["error_rate <= 1%"], max_soak=1000)
    record = serving.drive(serving.rollout(v2, policy), backend=Swamped(serving.backend))
    assert record.phase is Phase.SUCCEEDED, record.outcome
    (counted,) = serving.cursor(record).evidence.strata["error_rate <= 1%"]
    assert (counted.new_share, counted.stable_share) == (100, 0)
