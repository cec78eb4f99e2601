"""Rollouts: every stage, every ending, every user who speaks up, in virtual time."""

from __future__ import annotations

import json

import attrs
import pytest

from modeldeploy.engine.record import Verb
from modeldeploy.engine.rollout import Stage
from modeldeploy.errors import (
    FencedError,
    OperationFailed,
    QuotaError,
    UnavailableError,
)
from modeldeploy.testing.faults import Fault, FaultyBackend
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.gate import Verdict
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Action, Phase

CANARY = RolloutPolicy.canary((10, 50), soak=60.0, gates=["error_rate <= 1%"])


def tables(scene):
    return [json.loads(table)["weights"] for table in scene.tables]


# ---------------------------------------------------------------- straight through


def test_a_first_deployment_gives_everything_to_its_revision(scene, v1):
    checked = []
    record = scene.drive(scene.rollout(v1), check=checked.append)
    assert record.phase is Phase.SUCCEEDED
    assert scene.live == {v1.id: 100}
    assert checked == [v1]
    assert scene.history() == [("promoted", v1.id)]
    assert scene.names()[-1] == "operation.succeeded"


def test_a_canary_walks_its_steps_and_soaks_in_each(serving, v1, v2):
    began = serving.clock.now()
    record = serving.drive(serving.rollout(v2, CANARY))
    assert record.phase is Phase.SUCCEEDED, record.outcome
    assert [table.get(v2.id) for table in tables(serving)] == [10, 50, 100]
    assert 120 <= serving.clock.now() - began < 130
    assert serving.there == [v1.id, v2.id]
    assert serving.cursor(record).verdict is Verdict.PASS


def test_a_linear_walk_adds_its_step_each_time(serving, v2):
    record = serving.drive(serving.rollout(v2, RolloutPolicy.linear(25, every=10)))
    assert record.phase is Phase.SUCCEEDED
    assert [table.get(v2.id) for table in tables(serving)] == [25, 50, 75, 100]


def test_blue_green_switches_at_once_and_bakes(serving, v1, v2):
    began = serving.clock.now()
    record = serving.drive(serving.rollout(v2, RolloutPolicy.blue_green(bake=300, gates=["error_rate <= 1%"])))
    assert record.phase is Phase.SUCCEEDED
    assert [table.get(v2.id) for table in tables(serving)] == [100]
    assert serving.clock.now() - began >= 300


def test_blue_green_goes_back_when_a_gate_fails_while_it_bakes(serving, v1, v2):
    serving.sick[v2.id] = 0.5
    policy = RolloutPolicy.blue_green(bake=300, gates=["error_rate <= 1%"])
    record = serving.drive(serving.rollout(v2, policy))
    assert record.phase is Phase.FAILED
    assert serving.live == {v1.id: 100}
    assert serving.history() == [("aborted", v2.id)]


def test_a_bake_longer_than_the_patience_for_evidence_is_baked_to_its_end(serving, v2):
    serving.rate = 0
    began = serving.clock.now()
    policy = RolloutPolicy.blue_green(bake=1000, gates=["error_rate <= 1%"])
    record = serving.drive(serving.rollout(v2, policy))
    assert record.phase is Phase.SUCCEEDED
    assert serving.clock.now() - began >= 1000


def test_relative_gates_compare_with_stable_before_the_switch_too(serving, v1, v2):
    serving.flow(60)
    serving.slow[v2.id] = 0.5
    policy = RolloutPolicy.blue_green(bake=100, gates=["p95_latency <= 1.5x"])
    record = serving.drive(serving.rollout(v2, policy))
    assert record.phase is Phase.FAILED
    assert "p95_latency" in record.outcome
    assert serving.live == {v1.id: 100}


def test_a_baseline_split_over_two_keeps_its_proportions(serving, v1, v2, v3):
    serving.put(v2)
    serving.set_traffic({v1.id: 60, v2.id: 40})
    serving.backend.writes.clear()
    record = serving.drive(serving.rollout(v3, RolloutPolicy.canary((10,), soak=1)))
    assert record.phase is Phase.SUCCEEDED
    assert tables(serving) == [{v1.id: 54, v2.id: 36, v3.id: 10}, {v1.id: 0, v2.id: 0, v3.id: 100}]


def test_tidying_keeps_so_many_earlier_revisions_the_latest_stable_first(serving, revision, v1, v2, v3):
    serving.put(v2, v3)
    serving.set_traffic({v2.id: 100})
    newest = revision("2.0.0")
    serving.drive(serving.rollout(newest, keep=2))
    assert serving.there == [v2.id, v3.id, newest.id]
    serving.drive(serving.rollout(revision("3.0.0"), keep=0))
    assert serving.there == [revision("3.0.0").id]


def test_a_revision_that_will_not_go_costs_no_promotion(serving, v1, v2):
    class Sticky(FaultyBackend):
        def drop_revision(self, endpoint, revision):
            message = "it is pinned"
            raise QuotaError(message)

    record = serving.drive(serving.rollout(v2, keep=0), backend=Sticky(serving.backend))
    assert record.phase is Phase.SUCCEEDED
    told = [event for event in serving.emitted if event.fields.get("left_over")]
    assert [event.fields["left_over"] for event in told] == [v1.id]


# ---------------------------------------------------------------- what is there already


def test_rolling_out_what_serves_already_is_no_work(serving, v1):
    record = serving.drive(serving.rollout(v1, CANARY))
    assert record.phase is Phase.SUCCEEDED
    assert serving.backend.writes == []
    assert serving.live == {v1.id: 100}


def test_a_share_that_it_has_already_is_never_made_smaller(serving, v1, v2):
    serving.put(v2)
    serving.set_traffic({v1.id: 70, v2.id: 30})
    serving.backend.writes.clear()
    serving.drive(serving.rollout(v2, CANARY))
    assert [table.get(v2.id) for table in tables(serving)] == [50, 100]


def test_an_endpoint_without_traffic_gives_everything_at_once(scene, v1, v2):
    scene.put(v1)
    scene.set_traffic({})
    scene.backend.writes.clear()
    record = scene.drive(scene.rollout(v2, CANARY))
    assert record.phase is Phase.SUCCEEDED
    assert [table.get(v2.id) for table in tables(scene)] == [100]


# ---------------------------------------------------------------- the golden gate


def refuse(_revision):
    message = "row 3 differs"
    raise OperationFailed(message)


def test_a_first_revision_that_differs_from_its_golden_outputs_leaves_no_endpoint(scene, v1):
    record = scene.drive(scene.rollout(v1), check=refuse)
    assert record.phase is Phase.FAILED
    assert "row 3 differs" in record.outcome
    assert scene.backend.observe("iris") is None
    assert scene.history() == [("refused", v1.id)]


def test_a_later_one_is_dropped_and_traffic_is_not_touched(serving, v1, v2):
    record = serving.drive(serving.rollout(v2, CANARY), check=refuse)
    assert record.phase is Phase.FAILED
    assert (serving.there, tables(serving)) == ([v1.id], [])


def test_one_that_was_there_before_stays(serving, v1, v2):
    serving.put(v2)
    serving.drive(serving.rollout(v2, CANARY), check=refuse)
    assert serving.there == [v1.id, v2.id]


def test_a_new_endpoint_is_checked_where_calls_cannot_be_pinned(make_scene, v1):
    scene = make_scene(capabilities=Capabilities(serving=True))
    checked = []
    scene.drive(scene.rollout(v1), check=checked.append)
    assert checked == [v1]


def test_a_shared_endpoint_is_not_checked_where_calls_cannot_be_pinned(make_scene, v1, v2):
    scene = make_scene(capabilities=Capabilities(serving=True))
    scene.put(v1)
    record = scene.drive(scene.rollout(v2), check=refuse)
    assert record.phase is Phase.SUCCEEDED


def test_what_cannot_be_cleaned_up_is_told(serving, v2):
    class Sticky(FaultyBackend):
        def drop_revision(self, endpoint, revision):
            message = "it is pinned"
            raise QuotaError(message)

    record = serving.drive(serving.rollout(v2), check=refuse, backend=Sticky(serving.backend))
    assert record.phase is Phase.FAILED
    assert "could not be removed" in record.outcome
    assert "it is pinned" in record.outcome


# ---------------------------------------------------------------- making it ready


def test_a_revision_that_fails_to_start_is_cleaned_up(serving, v1, v2):
    serving.backend.doom(v2.id, "no memory left")
    record = serving.drive(serving.rollout(v2))
    assert record.phase is Phase.FAILED
    assert "no memory left" in record.outcome
    assert serving.there == [v1.id]


def test_a_revision_that_is_reported_ready_and_is_not_is_refused(serving, v1, v2):
    class Liar(FaultyBackend):
        def advance(self, ticket):
            after = super().advance(ticket)
            if ticket.action is Action.PUT_REVISION and after.step == "creating":
                serving.carry(serving.backend.drop_revision("iris", v2.id))
                return attrs.evolve(after, phase=Phase.SUCCEEDED)
            return after

    record = serving.drive(serving.rollout(v2), backend=Liar(serving.backend))
    assert record.phase is Phase.FAILED
    assert "reported ready and is not" in record.outcome
    assert serving.live == {v1.id: 100}


# ---------------------------------------------------------------- gates


def test_a_failed_gate_goes_back_and_never_out_again(serving, v1, v2):
    serving.sick[v2.id] = 0.5
    record = serving.rollout(v2, CANARY)
    ended = serving.drive(record)
    assert ended.phase is Phase.FAILED
    assert [table.get(v2.id, 0) for table in tables(serving)] == [10, 0]
    assert serving.cursor(record).verdict is Verdict.FAIL
    assert "error_rate <= 1%" in ended.outcome


def test_a_driver_that_died_after_the_verdict_does_not_ask_again(serving, meets, v1, v2):
    serving.sick[v2.id] = 0.5
    record = serving.rollout(v2, CANARY)

    class KilledError(BaseException):
        pass

    def die():
        raise KilledError

    back = [False]

    def going_back(effect):
        found = back[0]
        back[0] = found or meets.saved("back")(effect)
        return found

    serving.once(going_back, die)
    with pytest.raises(KilledError):
        serving.drive(record)
    assert serving.cursor(record).stage is Stage.BACK
    serving.sick.clear()
    assert serving.drive(record).phase is Phase.FAILED
    assert serving.live == {v1.id: 100}


@pytest.mark.parametrize(
    ("choice", "phase", "percent"),
    [("hold", Phase.RUNNING, 10), ("promote", Phase.SUCCEEDED, 100), ("rollback", Phase.FAILED, 0)],
)
def test_when_evidence_never_suffices_the_policy_decides(serving, v2, choice, phase, percent):
    serving.rate = 1
    policy = RolloutPolicy.canary(
        (10,), soak=60, gates=["error_rate <= 1%"], max_soak=120, on_inconclusive=choice, min_sample=50
    )
    record = serving.drive(serving.rollout(v2, policy))
    assert record.phase is phase
    assert record.paused is (choice == "hold")
    assert serving.live.get(v2.id, 0) == percent


def test_gates_on_a_backend_that_measures_nothing_go_back(serving, v1, v2):
    class Unmeasured:
        def __init__(self, inner):
            self.name, self.capabilities = inner.name, inner.capabilities
            self.put_revision, self.set_traffic, self.observe = inner.put_revision, inner.set_traffic, inner.observe
            self.advance, self.drop_revision = inner.advance, inner.drop_revision

    record = serving.drive(serving.rollout(v2, CANARY), backend=Unmeasured(serving.backend))
    assert record.phase is Phase.FAILED
    assert "declares meters and has none" in record.outcome
    assert serving.live == {v1.id: 100}


# ---------------------------------------------------------------- the provider fails


def test_going_back_asks_for_no_revision_that_was_dropped_meanwhile(serving, v1, v2, v3):
    """After a promotion the provider's table still names the old revision, with nothing."""
    assert serving.drive(serving.rollout(v2, keep=0)).phase is Phase.SUCCEEDED
    assert serving.there == [v2.id]
    serving.sick[v3.id] = 0.5
    ended = serving.drive(serving.rollout(v3, CANARY))
    assert ended.phase is Phase.FAILED
    assert serving.live == {v2.id: 100}


def test_a_provider_failure_in_the_walk_goes_back(serving, v1, v2):
    faulty = FaultyBackend(serving.backend)
    real = faulty.set_traffic

    def full(endpoint, traffic, *, expect=None):
        if traffic.share(v2.id) == 50:
            message = "no capacity"
            raise QuotaError(message)
        return real(endpoint, traffic, expect=expect)

    faulty.set_traffic = full
    ended = serving.drive(serving.rollout(v2, CANARY), backend=faulty)
    assert ended.phase is Phase.FAILED
    assert "the provider failed: no capacity" in ended.outcome
    assert serving.live == {v1.id: 100}


def test_a_provider_failure_on_the_way_back_leaves_it_resumable(serving, v1, v2):
    serving.sick[v2.id] = 0.5
    faulty = FaultyBackend(serving.backend)
    real = faulty.set_traffic

    def down(endpoint, traffic, *, expect=None):
        if traffic == Traffic.all_to(v1.id):
            message = "down"
            raise UnavailableError(message)
        return real(endpoint, traffic, expect=expect)

    faulty.set_traffic = down
    record = serving.rollout(v2, CANARY)
    with pytest.raises(UnavailableError):
        serving.drive(record, backend=faulty)
    assert serving.journal.read(record.id).phase is Phase.RUNNING
    assert serving.drive(record).phase is Phase.FAILED
    assert serving.live == {v1.id: 100}


def test_a_way_back_that_the_provider_undid_is_tried_anew(serving, v1, v2):
    """A ticket that failed must not be taken up for ever."""
    serving.sick[v2.id] = 0.5
    record = serving.rollout(v2, CANARY)
    faulty = FaultyBackend(serving.backend)
    real = faulty.advance

    def undo(ticket):
        after = real(ticket)
        back = ticket.action is Action.SET_TRAFFIC and ticket.wanted["traffic"]["weights"] == {v1.id: 100}
        if back and serving.live == {v1.id: 100} and not after.phase.ended:
            serving.set_traffic({v1.id: 90, v2.id: 10})
        return after

    faulty.advance = undo
    with pytest.raises(OperationFailed):
        serving.drive(record, backend=faulty)
    assert serving.live == {v1.id: 90, v2.id: 10}
    assert serving.drive(record).phase is Phase.FAILED
    assert serving.live == {v1.id: 100}


FENCED = {
    "begins": "observe",
    "is made ready": "advance put-revision",
    "is checked": "check golden outputs",
    "is cleaned up": "advance drop-revision",
    "walks": "advance set-traffic",
    "is tidied": "advance drop-revision",
}


@pytest.mark.parametrize("when", FENCED)
def test_a_fenced_driver_stops_without_another_word(serving, meets, v2, when):
    record = serving.rollout(v2, CANARY, keep=0)
    other = attrs.evolve(record, id="other", cursor={})
    serving.once(meets.call(FENCED[when]), lambda: serving.journal.create(other, supersede=record.id))
    with pytest.raises(FencedError):
        serving.drive(record, check=refuse if when == "is cleaned up" else lambda _revision: None)
    assert serving.journal.read(record.id).outcome == "superseded by other"


@pytest.mark.parametrize("fault", list(Fault))
def test_single_faults_are_survived(serving, v2, fault):
    faulty = FaultyBackend(serving.backend, {"advance:3": fault, "observe:3": fault})
    ended = serving.drive(serving.rollout(v2, CANARY), backend=faulty)
    assert ended.phase in {Phase.SUCCEEDED, Phase.FAILED} or ended.paused
    assert faulty.seen


# ---------------------------------------------------------------- taken up again


class KilledError(BaseException):
    """The process ends here."""


def kill_at(scene, wanted, number):
    """End the driver just before the ``number``-th effect of this kind."""
    seen = []

    def die():
        raise KilledError

    scene.once(lambda effect: wanted(effect) and (seen.append(1) or len(seen) == number), die)


@pytest.mark.parametrize(
    ("call", "number"),
    [("advance put-revision", 2), ("advance set-traffic", 2), ("read metrics", 9), ("advance drop-revision", 2)],
)
def test_another_driver_goes_on_where_the_first_was_killed(serving, meets, v2, call, number):
    record = serving.rollout(v2, CANARY, keep=0)
    kill_at(serving, meets.call(call), number)
    with pytest.raises(KilledError):
        serving.drive(record)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert [table.get(v2.id) for table in tables(serving)] == [10, 50, 100]
    assert [write.verb for write in serving.backend.writes].count("create-revision") == 1
    assert serving.there == [v2.id]


@pytest.mark.parametrize("fenced", [False, True])
def test_a_word_that_comes_just_before_the_check_is_heeded(serving, meets, v1, v2, fenced):
    record, seen = serving.rollout(v2, CANARY), []

    def say():
        serving.tell(record, Verb.RESUME if fenced else Verb.ABORT, "no")
        if fenced:
            serving.journal.create(attrs.evolve(record, id="other", cursor={}), supersede=record.id)

    ready = meets.saved("check")
    # After that save and before the check.
    serving.once(lambda effect: bool(seen) or (ready(effect) and seen.append(1)), say)
    if fenced:
        with pytest.raises(FencedError):
            serving.drive(record, check=refuse)
    else:
        assert serving.drive(record, check=refuse).outcome == "no"
        assert serving.there == [v1.id]
