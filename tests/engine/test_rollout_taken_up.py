"""What users say to a rollout whose driver is gone: the next one heeds it, and promotes only what takes all traffic."""

from __future__ import annotations

import pytest

from modeldeploy.engine.effects import Call, Emit, Save
from modeldeploy.engine.record import Verb
from modeldeploy.errors import QuotaError
from modeldeploy.values.events import Name
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Phase

CANARY = RolloutPolicy.canary((10, 50), soak=60.0)


class DiedError(BaseException):
    """The driver is gone."""


def die_at(scene, wanted):
    def die():
        raise DiedError

    scene.once(wanted, die)


def in_flight(share):
    """Tell the moment at which a table that gives this share to the new revision is on its way."""
    flights = []

    def meets(effect):
        if isinstance(effect, Save):
            ticket = effect.cursor.get("ticket") or {}
            flights.append(share in ticket.get("wanted", {}).get("traffic", {}).get("weights", {}).values())
        return isinstance(effect, Call) and effect.what == "advance set-traffic" and bool(flights) and flights[-1]

    return meets


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.SKIP])
@pytest.mark.parametrize("share", [10, 50, 100])
def test_a_word_that_finds_a_table_in_flight_is_heeded_after_it_landed(serving, v2, verb, share):
    record = serving.rollout(v2, CANARY)
    die_at(serving, in_flight(share))
    with pytest.raises(DiedError):
        serving.drive(record)
    serving.tell(record, verb)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


def test_skipping_before_the_last_table_was_set_does_not_leave_it_out(serving, v2):
    """Who says so is done with waiting; the new revision must take everything all the same."""
    record = serving.rollout(v2, CANARY)
    die_at(serving, lambda effect: isinstance(effect, Save) and effect.cursor["step"] == 2 and effect.cursor["ticket"])
    with pytest.raises(DiedError):
        serving.drive(record)
    serving.tell(record, Verb.SKIP)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


def test_skipping_after_the_provider_refused_the_last_table_asks_for_it_again(serving, v2):
    whole = serving.backend.set_traffic
    refused = []

    def refuse_once(endpoint, traffic, *, expect=None):
        if traffic.share(v2.id) == 100 and not refused:
            refused.append(traffic)
            message = "not today"
            raise QuotaError(message)
        return whole(endpoint, traffic, expect=expect)

    serving.backend.set_traffic = refuse_once
    record = serving.rollout(v2, RolloutPolicy.canary((10,), soak=1.0, on_failure="hold"))
    assert serving.drive(record).paused
    serving.tell(record, Verb.SKIP)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


def test_a_revision_that_failed_a_gate_is_not_asked_again_by_the_next_driver(serving, v1, v2):
    """Nor when it looks well by then: a failure stays one."""
    answers = iter([False])
    record = serving.rollout(v2, RolloutPolicy.canary((10,), soak=1.0, gates=[lambda _look: next(answers, True)]))
    die_at(serving, lambda effect: isinstance(effect, Emit) and effect.name is Name.ROLLOUT_VERDICT)
    with pytest.raises(DiedError):
        serving.drive(record)
    assert serving.drive(record).phase is Phase.FAILED
    assert serving.live == {v1.id: 100}


def test_an_abort_is_not_taken_back_by_a_word_to_go_on(serving, v1, v2):
    record = serving.rollout(v2, CANARY)
    serving.tell(record, Verb.PAUSE)
    assert serving.drive(record).paused
    serving.tell(record, Verb.ABORT)
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.CANCELLED
    assert serving.live == {v1.id: 100}
