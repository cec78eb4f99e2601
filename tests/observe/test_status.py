from __future__ import annotations

import pytest

from modeldeploy.observe.status import Status, duration
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Name
from modeldeploy.values.gate import GateResult, Verdict


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_are_written_as_a_reader_says_them(seconds, words):
    assert duration(seconds) == words


def test_progress_moves_the_share_and_the_note(event):
    status = Status.of("deploy iris", 1_700_000_000.0)
    status = status.after(event(Name.OPERATION_PROGRESS, at=1_700_000_075.0, fraction=0.5, note="loading the model"))
    assert str(status) == "deploy iris: 50% loading the model (1 min 15 s)"


def test_a_share_that_nobody_knows_is_left_out(event):
    status = Status.of("deploy iris", 1_700_000_000.0).after(event(Name.OPERATION_PROGRESS, fraction=None, note=""))
    assert str(status) == "deploy iris: started (0 s)"


@pytest.mark.parametrize(("given", "shown"), [(-1, 0.0), (7, 1.0), ("half", None)])
def test_a_share_is_kept_within_its_bounds(event, given, shown):
    assert Status.of("x", 0.0).after(event(Name.OPERATION_PROGRESS, fraction=given)).fraction == shown


@pytest.mark.parametrize("name", Name)
def test_every_event_can_be_shown_even_without_fields(event, name):
    assert str(Status.of("x", 0.0).after(event(name)))


@pytest.mark.parametrize(
    ("name", "fields", "note"),
    [
        (Name.TRAFFIC_CHANGED, {"traffic": {"r1": 95, "r2": 5}}, "traffic r1 95 %, r2 5 %"),
        (Name.TRAFFIC_CHANGED, {"traffic": {"weights": {"r1": 100}, "shadow": {}}}, "traffic r1 100 %"),
        (Name.TRAFFIC_CHANGED, {"traffic": {}}, "traffic off"),
        (
            Name.TRAFFIC_CHANGED,
            {"traffic": {"r1": 100}, "copies": {"r2": 20}},
            "traffic r1 100 %, copies of 20 % to r2",
        ),
        (Name.ROLLOUT_STEP, {"percent": 0}, "step without traffic"),
        (Name.ROLLOUT_SKIPPED, {"reason": "in a hurry"}, "step skipped: in a hurry"),
        (Name.ROLLOUT_BLIND, {"reason": "no route"}, "metrics cannot be read: no route"),
        (Name.ROLLOUT_LOOK, {"percent": 25, "verdict": "pass", "gates": []}, "at 25 %: pass"),
        (Name.ROLLOUT_STEP, {"percent": 25}, "step 25 %"),
        (Name.GOLDEN_CHECKED, {"ok": True}, "golden outputs reproduced"),
        (Name.GOLDEN_CHECKED, {"ok": False, "error": "row 3"}, "golden outputs differ: row 3"),
        (Name.ROLLOUT_VERDICT, {"verdict": "fail", "reason": "error_rate 4% > 1%"}, "gates: fail: error_rate 4% > 1%"),
        (Name.ROLLOUT_VERDICT, {"verdict": "pass", "reason": "0 of 900"}, "gates: pass"),
        (Name.OPERATION_RETRY, {"error": "busy"}, "trying again: busy"),
        (Name.OPERATION_FAILED, {"error": "quota"}, "failed: quota"),
    ],
)
def test_events_are_told_in_words(event, name, fields, note):
    assert Status.of("x", 0.0).after(event(name, **fields)).note == note


PASSES = GateResult("p95_latency <= 1.2x", Verdict.PASS, sample=900, bad=3, against=0.1, favour=5e4)
DOUBTS = GateResult("error_rate <= 1%", Verdict.INCONCLUSIVE, sample=900, bad=2, against=0.41, favour=3.2)
FAILS = GateResult("latency <= 2x", Verdict.FAIL, sample=900, bad=90, against=31, favour=0.001)
EMPTY = GateResult("error_rate <= 1%", Verdict.INCONCLUSIVE, against=1, favour=1)
MINE = GateResult("mine", Verdict.BLIND, reason="no such table")


@pytest.mark.parametrize(
    ("gates", "verdict", "words"),
    [
        ([PASSES], "pass", "p95_latency <= 1.2x: 3 of 900 bad, evidence for 5e4, against 0.1"),
        (
            [PASSES, DOUBTS],
            "inconclusive",
            "error_rate <= 1% (and 1 more): 2 of 900 bad, evidence for 3.2, against 0.41",
        ),
        (
            [PASSES, DOUBTS, FAILS, MINE],
            "fail",
            "latency <= 2x (and 3 more): 90 of 900 bad, evidence for < 0.01, against 31",
        ),
        ([EMPTY], "inconclusive", "error_rate <= 1%: nothing was answered yet"),
        ([DOUBTS, MINE], "blind", "mine (and 1 more): no such table"),
    ],
    ids=["one", "the one in doubt", "the one that failed", "nothing", "the one that cannot see"],
)
def test_a_look_is_told_by_the_gate_that_it_hangs_on(event, gates, verdict, words):
    look = event(Name.ROLLOUT_LOOK, percent=25, verdict=verdict, gates=[to_json(gate) for gate in gates])
    assert Status.of("x", 0.0).after(look).note == f"at 25 %: {verdict}; {words}"


def test_the_rows_of_a_batch_job_are_its_share(event):
    status = Status.of("score", 0.0).after(event(Name.OPERATION_PROGRESS, action="put-job", fraction=0.25))
    assert status.fraction == 0.25
    assert status.after(event(Name.OPERATION_PROGRESS, action="put-job", fraction=None)).fraction == 0.25


def test_the_step_of_a_rollout_is_its_share_and_small_steps_do_not_move_it(event):
    status = Status.of("x", 0.0).after(event(Name.ROLLOUT_STEP, percent=25))
    assert status.fraction == 0.25
    assert status.after(event(Name.OPERATION_PROGRESS, action="set-traffic", fraction=1.0)).fraction == 0.25


def test_the_end_is_known_and_whether_it_is_a_good_one(event):
    failed = Status.of("x", 0.0).after(event(Name.OPERATION_FAILED, outcome="no room"))
    assert (failed.ended, failed.failed, failed.fraction, failed.note) == (True, True, None, "failed: no room")
    done = Status.of("x", 0.0).after(event(Name.OPERATION_SUCCEEDED))
    assert (done.ended, done.failed, done.fraction) == (True, False, 1.0)


@pytest.mark.parametrize(("kind", "failed"), [("rollout", True), ("rollback", False)])
def test_going_back_is_how_a_rollout_fails_and_what_a_rollback_is_for(event, kind, failed):
    status = Status.of("x", 0.0).after(event(Name.ROLLOUT_ROLLED_BACK, kind=kind, reason="error_rate 4% > 1%"))
    assert (status.failed, status.note) == (failed, "rolled back: error_rate 4% > 1%")
    assert (status.ended, status.fraction) == ((False, None) if failed else (True, 1.0))
