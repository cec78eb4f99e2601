"""Rollbacks: at once when warm, made ready first when not, and where "back" is."""

from __future__ import annotations

import json

import pytest

from modeldeploy.engine.record import HistoryEntry, HistoryLine, Kind
from modeldeploy.engine.rollback import RollbackCursor, served, target
from modeldeploy.errors import FencedError, NotFoundError, OperationFailed, QuotaError, UnavailableError
from modeldeploy.testing.faults import FaultyBackend
from modeldeploy.values.codec import to_json
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec
from modeldeploy.values.ticket import Action, Phase


@pytest.fixture
def serving(scene, v1, v2):
    """v2 serves, v1 is warm."""
    scene.put(v1, v2)
    scene.set_traffic({v2.id: 100})
    scene.backend.writes.clear()
    return scene


def back(scene, revision, **options):
    return scene.begin(Kind.ROLLBACK, RollbackCursor(EndpointSpec("iris"), revision, "worse"), **options)


def test_a_warm_revision_takes_over_with_one_write(serving, v1):
    record = serving.drive(back(serving, v1))
    assert (record.phase, record.outcome) == (Phase.SUCCEEDED, f"{v1.id} takes all traffic again")
    assert serving.live == {v1.id: 100}
    assert [write.verb for write in serving.backend.writes] == ["set-traffic"]
    assert serving.history() == [("rolled-back", v1.id)]
    assert serving.names()[-1] == "operation.succeeded"


def test_a_cold_revision_is_made_ready_first(serving, v1):
    serving.carry(serving.backend.drop_revision("iris", v1.id))
    serving.backend.writes.clear()
    assert serving.drive(back(serving, v1)).phase is Phase.SUCCEEDED
    assert [write.verb for write in serving.backend.writes] == ["create-revision", "set-traffic"]


def test_rolling_back_to_what_serves_writes_nothing(serving, v2):
    assert serving.drive(back(serving, v2)).phase is Phase.SUCCEEDED
    assert serving.backend.writes == []


def test_a_revision_that_cannot_be_made_ready_fails_the_rollback(serving, v1, v2):
    serving.carry(serving.backend.drop_revision("iris", v1.id))
    serving.backend.doom(v1.id, "no memory left")
    record = back(serving, v1)
    with pytest.raises(OperationFailed, match="no memory left"):
        serving.drive(record)
    ended = serving.journal.read(record.id)
    assert ended.phase is Phase.FAILED
    assert "no memory left" in ended.outcome
    assert serving.live == {v2.id: 100}


def test_one_that_is_reported_ready_and_is_not_fails_it_too(serving, v1, v2):
    serving.carry(serving.backend.drop_revision("iris", v1.id))

    class Liar(FaultyBackend):
        def advance(self, ticket):
            after = super().advance(ticket)
            if after.action is Action.PUT_REVISION and after.phase is Phase.SUCCEEDED:
                serving.carry(serving.backend.drop_revision("iris", v1.id))
            return after

    with pytest.raises(OperationFailed, match="reported ready and is not"):
        serving.drive(back(serving, v1), backend=Liar(serving.backend))
    assert serving.live == {v2.id: 100}


def test_a_refusal_ends_it_so_that_the_next_operation_can_begin(serving, v1):
    class Full(FaultyBackend):
        def set_traffic(self, endpoint, traffic, *, expect=None):
            message = "no"
            raise QuotaError(message)

    record = back(serving, v1)
    with pytest.raises(QuotaError):
        serving.drive(record, backend=Full(serving.backend))
    assert serving.journal.read(record.id).phase is Phase.FAILED
    assert serving.drive(back(serving, v1)).phase is Phase.SUCCEEDED


def test_an_outage_leaves_it_to_be_taken_up_again(serving, v1):
    class Down(FaultyBackend):
        def set_traffic(self, endpoint, traffic, *, expect=None):
            message = "down"
            raise UnavailableError(message)

    record = back(serving, v1)
    with pytest.raises(UnavailableError):
        serving.drive(record, backend=Down(serving.backend))
    assert serving.journal.read(record.id).phase is Phase.RUNNING
    assert serving.drive(record).phase is Phase.SUCCEEDED


def test_a_rollback_that_was_superseded_stops(serving, meets, v1, v2):
    record = back(serving, v1)
    serving.once(
        meets.call("advance set-traffic"),
        lambda: back(serving, v2, supersede=record.id),
    )
    with pytest.raises(FencedError):
        serving.drive(record)


def test_a_rollback_fences_the_driver_of_a_running_rollout(scene, v1, v2):
    """Also one that was in the middle of a step."""
    scene.put(v1)
    rollout = scene.rollout(v2, RolloutPolicy.canary((10, 50), soak=60))
    scene.after(70, lambda: scene.drive(back(scene, v1, supersede=rollout.id)))
    with pytest.raises(FencedError):
        scene.drive(rollout)
    assert scene.live == {v1.id: 100}
    assert [json.loads(table)["weights"].get(v2.id, 0) for table in scene.tables] == [10, 50, 0]


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("call", ["advance put-revision", "advance set-traffic"])
def test_another_driver_goes_on_where_the_first_was_killed(serving, meets, v1, call):
    serving.carry(serving.backend.drop_revision("iris", v1.id))
    record, seen, wanted = back(serving, v1), [], meets.call(call)
    serving.backend.writes.clear()

    def die():
        raise KilledError

    serving.once(lambda effect: wanted(effect) and (seen.append(1) or len(seen) == 2), die)
    with pytest.raises(KilledError):
        serving.drive(record)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert [write.verb for write in serving.backend.writes] == ["create-revision", "set-traffic"]


# ---------------------------------------------------------------- where "back" is


def history(*entries):
    lines = []
    for number, (what, revision) in enumerate(entries, start=1):
        evidence = {"revision": to_json(revision)} if revision else {}
        entry = HistoryEntry(what, revision.id if revision else "", "", evidence)
        lines.append(HistoryLine(number, 0.0, "me", "op", entry, ""))
    return lines


def find(lines, stable=None, to=None):
    return target(lines, endpoint="iris", stable=stable, to=to)


def test_rolling_back_twice_goes_two_steps_back(v1, v2, v3):
    lines = history(("promoted", v1), ("promoted", v2), ("promoted", v3))
    assert find(lines, v3.id) == v2
    lines += history(("rolled-back", v2))
    assert find(lines, v2.id) == v1


def test_after_a_rollback_a_new_rollout_can_be_rolled_back_to_where_it_began(v1, v2, v3):
    lines = history(("promoted", v1), ("promoted", v2), ("rolled-back", v1), ("promoted", v3))
    assert find(lines, v3.id) == v1


def test_what_never_took_traffic_is_no_target(v1, v2, v3):
    lines = history(("promoted", v1), ("refused", v2), ("aborted", v3))
    assert served(lines) == [v1]
    with pytest.raises(NotFoundError, match="no earlier revision"):
        find(lines, v1.id)


def test_a_deleted_endpoint_has_no_past(v1, v2):
    assert served(history(("promoted", v1), ("deleted", None), ("promoted", v2))) == [v2]


def test_a_revision_promoted_again_counts_once(v1, v2):
    assert served(history(("promoted", v1), ("promoted", v2), ("promoted", v1))) == [v2, v1]


def test_a_rollback_to_what_never_served_here_counts_as_serving(v1, v2):
    assert served(history(("promoted", v1), ("rolled-back", v2))) == [v1, v2]


def test_when_stable_is_not_in_the_history_the_last_that_served_is_back(v1, v2):
    assert find(history(("promoted", v1)), v2.id) == v1


@pytest.mark.parametrize("to", ["1.1.0", "id"])
def test_any_revision_can_be_named_by_id_or_version(v1, v2, v3, to):
    lines = history(("promoted", v1), ("promoted", v2), ("promoted", v3), ("deleted", None))
    assert find(lines, v3.id, v2.id if to == "id" else to) == v2


def test_an_unknown_name_lists_the_known(v1):
    with pytest.raises(NotFoundError, match=v1.id):
        find(history(("promoted", v1)), v1.id, "9.9.9")
