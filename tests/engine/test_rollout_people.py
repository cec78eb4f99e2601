"""Rollouts that people speak up in: who pauses, promotes, aborts, or changes the traffic past us."""

from __future__ import annotations

import json

import pytest

from modeldeploy.engine.record import Verb
from modeldeploy.errors import (
    NotFoundError,
)
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Phase

CANARY = RolloutPolicy.canary((10, 50), soak=60.0, gates=["error_rate <= 1%"])


def tables(scene):
    return [json.loads(table)["weights"] for table in scene.tables]


# ---------------------------------------------------------------- what users say


STAGES = {
    "before it begins": None,
    "while it is made ready": "advance put-revision",
    "while it is checked": "check golden outputs",
    "while traffic moves": "advance set-traffic",
    "while it soaks": "read metrics",
}


@pytest.mark.parametrize("when", STAGES)
def test_an_abort_goes_back_from_every_stage(serving, meets, v1, v2, when):
    record = serving.rollout(v2, CANARY)
    if STAGES[when] is None:
        serving.tell(record, Verb.ABORT, "no")
    else:
        seen = []
        wanted = meets.call(STAGES[when])
        # The second look, so that the provider is in the middle of it.
        serving.once(
            lambda effect: wanted(effect) and (seen.append(1) or len(seen) > (when == "while traffic moves")),
            lambda: serving.tell(record, Verb.ABORT, "no"),
        )
    ended = serving.drive(record, check=lambda _revision: None)
    assert ended.phase is Phase.CANCELLED
    assert ended.outcome == "no"
    serving.flow(60)
    serving.carry(serving.backend.drop_revision("iris", v2.id))  # nothing is in flight that would use it
    assert serving.live == {v1.id: 100}


@pytest.mark.parametrize("when", STAGES)
def test_a_pause_stops_it_before_the_next_change_and_resume_goes_on(serving, meets, v1, v2, when):
    record = serving.rollout(v2, CANARY)
    if STAGES[when] is None:
        serving.tell(record, Verb.PAUSE, "lunch")
    else:
        serving.once(meets.call(STAGES[when]), lambda: serving.tell(record, Verb.PAUSE, "lunch"))
    paused = serving.drive(record, check=lambda _revision: None)
    assert paused.paused
    assert paused.outcome == "paused: lunch"
    early = when not in {"while traffic moves", "while it soaks"}
    assert serving.live.get(v2.id, 0) == (0 if early else 10)
    assert serving.drive(record).paused  # nobody said a word
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


@pytest.mark.parametrize("when", STAGES)
def test_promote_gives_everything_whatever_the_gates_say(serving, meets, v2, when):
    serving.sick[v2.id] = 1.0
    serving.rate = 1  # too few for a verdict
    record = serving.rollout(v2, CANARY)
    if STAGES[when] is None:
        serving.tell(record, Verb.PROMOTE, "boss")
    else:
        serving.once(meets.call(STAGES[when]), lambda: serving.tell(record, Verb.PROMOTE, "boss"))
    ended = serving.drive(record, check=lambda _revision: None)
    assert ended.phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}
    assert 50 not in [table.get(v2.id) for table in tables(serving)]


@pytest.mark.parametrize(("verb", "phase"), [(Verb.PROMOTE, Phase.SUCCEEDED), (Verb.ABORT, Phase.CANCELLED)])
@pytest.mark.parametrize("when", ["while it is made ready", "while it soaks"])
def test_a_paused_one_can_be_ended_either_way(serving, meets, revision, v2, verb, phase, when):  # noqa: PLR0917
    record = serving.rollout(v2, CANARY)
    serving.once(meets.call(STAGES[when]), lambda: serving.tell(record, Verb.PAUSE))
    assert serving.drive(record).paused
    serving.tell(record, verb)
    ended = serving.drive(record)
    assert ended.phase is phase
    assert serving.live == {revision("1.1.0" if verb is Verb.PROMOTE else "1.0.0").id: 100}


def test_a_first_deployment_aborted_while_paused_leaves_nothing(scene, meets, v1):
    record = scene.rollout(v1)
    scene.once(meets.call("advance put-revision"), lambda: scene.tell(record, Verb.PAUSE))
    assert scene.drive(record).paused
    scene.tell(record, Verb.ABORT, "never mind")
    assert scene.drive(record).phase is Phase.CANCELLED
    assert scene.backend.observe("iris") is None


def test_promote_in_the_last_step_keeps_the_time_that_it_soaked(serving, v2):
    record = serving.rollout(v2, RolloutPolicy.blue_green(bake=300, gates=["error_rate <= 1%"]))
    began = serving.clock.now()
    serving.after(100, lambda: serving.tell(record, Verb.PROMOTE))
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.clock.now() - began < 110


def test_a_word_to_go_on_without_a_pause_changes_nothing(serving, v2):
    record = serving.rollout(v2, CANARY)
    serving.after(30, lambda: serving.tell(record, Verb.RESUME))
    assert serving.drive(record).phase is Phase.SUCCEEDED


def test_the_words_after_a_pause_are_heeded_in_order(serving, v2):
    record = serving.rollout(v2, CANARY)

    def say():
        for verb in (Verb.PAUSE, Verb.RESUME, Verb.PAUSE):
            serving.tell(record, verb)

    serving.after(30, say)
    assert serving.drive(record).paused
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED


def test_an_abort_after_the_promotion_comes_too_late(serving, meets, v1, v2):
    record = serving.rollout(v2, keep=0)
    serving.once(meets.call("advance drop-revision"), lambda: serving.tell(record, Verb.ABORT))
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.there == [v2.id]


# ---------------------------------------------------------------- somebody else


def test_traffic_that_somebody_else_changed_is_not_overwritten(serving, v1, v2):
    record = serving.rollout(v2, CANARY)
    serving.after(30, lambda: serving.set_traffic({v1.id: 70, v2.id: 30}))
    paused = serving.drive(record)
    assert paused.paused
    assert "changed by somebody else" in paused.outcome
    assert serving.live == {v1.id: 70, v2.id: 30}


def test_a_table_that_somebody_set_back_is_not_overwritten_by_the_next_step(serving, v1, v2):
    record = serving.rollout(v2, RolloutPolicy.canary((10, 50), soak=60.0))
    serving.after(30, lambda: serving.set_traffic({v1.id: 100}))
    paused = serving.drive(record)
    assert paused.paused
    assert "changed by somebody else" in paused.outcome
    assert serving.live == {v1.id: 100}


def test_what_somebody_took_back_at_the_last_step_is_not_promoted(serving, v1, v2):
    record = serving.rollout(v2, RolloutPolicy.blue_green(bake=60.0))
    serving.after(30, lambda: serving.set_traffic({v1.id: 100}))
    assert serving.drive(record).paused
    assert serving.history() == []
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


def test_a_shadow_that_somebody_gave_all_traffic_keeps_it(serving, v2):
    record = serving.rollout(v2, RolloutPolicy.shadow(40, soak=60.0))
    serving.after(30, lambda: serving.set_traffic({v2.id: 100}))
    assert serving.drive(record).paused
    assert serving.live == {v2.id: 100}


def test_after_a_change_by_somebody_else_resume_goes_on_from_there(serving, v1, v2, v3):
    serving.put(v3)
    record = serving.rollout(v2, CANARY)
    serving.after(30, lambda: serving.set_traffic({v3.id: 70, v2.id: 30}))
    assert serving.drive(record).paused
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert tables(serving)[-2:] == [{v3.id: 50, v2.id: 50}, {v3.id: 0, v2.id: 100}]


def test_after_a_promotion_by_somebody_else_resume_finishes(serving, v1, v2):
    record = serving.rollout(v2, CANARY)
    serving.after(30, lambda: serving.set_traffic({v2.id: 100}))
    assert serving.drive(record).paused
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


def test_after_a_change_by_somebody_else_abort_goes_back(serving, v1, v2):
    record = serving.rollout(v2, CANARY)
    serving.after(30, lambda: serving.set_traffic({v1.id: 70, v2.id: 30}))
    assert serving.drive(record).paused
    serving.tell(record, Verb.ABORT)
    assert serving.drive(record).phase is Phase.CANCELLED
    assert serving.live == {v1.id: 100}


def test_going_back_leaves_a_table_alone_that_has_nothing_of_ours(serving, v1, v2, v3):
    serving.put(v3)
    serving.sick[v2.id] = 0.5
    record = serving.rollout(v2, RolloutPolicy.canary((10,), soak=60, gates=["error_rate <= 1%"], min_sample=10))

    serving.once(
        lambda effect: getattr(effect, "name", None) == "rollout.verdict", lambda: serving.set_traffic({v3.id: 100})
    )
    ended = serving.drive(record)
    assert ended.phase is Phase.FAILED
    assert serving.live == {v3.id: 100}


def test_a_race_for_the_table_is_lost_to_the_other(serving, meets, v1, v2, v3):
    """The other one writes between our look and our write."""
    serving.put(v3)
    record = serving.rollout(v2, CANARY)
    serving.once(meets.call("advance set-traffic"), lambda: serving.set_traffic({v3.id: 100}))
    assert serving.drive(record).paused
    assert serving.live == {v3.id: 100}


def test_an_endpoint_that_vanished_fails_the_rollout(serving, v2):
    record = serving.rollout(v2, CANARY)
    serving.after(30, lambda: serving.carry(serving.backend.drop_endpoint("iris")))
    ended = serving.drive(record)
    assert ended.phase is Phase.FAILED
    assert serving.backend.observe("iris") is None


def test_when_stable_vanished_going_back_stays_resumable(serving, v1, v2, v3):
    """There is nowhere to go back to; the operation says so until somebody decides."""
    serving.put(v3)
    record = serving.rollout(v2, CANARY)

    def vanish():
        serving.set_traffic({v2.id: 100})
        serving.carry(serving.backend.drop_revision("iris", v1.id))

    serving.after(30, vanish)
    assert serving.drive(record).paused
    serving.tell(record, Verb.ABORT)
    with pytest.raises(NotFoundError):
        serving.drive(record)
    assert serving.journal.read(record.id).phase is Phase.RUNNING
    serving.put(v1)
    assert serving.drive(record).phase is Phase.CANCELLED
    assert serving.live == {v1.id: 100}
