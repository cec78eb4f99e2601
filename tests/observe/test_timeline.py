from __future__ import annotations

import pytest

from modeldeploy.observe.formatting import counted, e_value, interval, quantity
from modeldeploy.observe.text import NOTHING, table
from modeldeploy.observe.timeline import Shares, Timeline, weights
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Name
from modeldeploy.values.gate import GateResult, Verdict

SHARE = GateResult(
    "error_rate <= 1%", Verdict.PASS, 0.012, 0.01, 1200, bad=14, low=0.002, high=0.03, against=2, favour=1
)
SECONDS = GateResult("p95_latency <= 80ms", Verdict.FAIL, 0.0901, 0.08, 1200, low=0.08, high=0.1)
OUTCOME = GateResult("outcome better than stable's", Verdict.PASS, 0.31, 0.3, 500, low=-0.01, high=0.03)


@pytest.fixture
def tell(event):
    """Give ``tell(*events, before=None)``: the timeline of the events, one a second from the first second on."""

    def make(*told, before=None):
        events = [event(name, at=1.0 + at, **fields) for at, (name, fields) in enumerate(told)]
        return Timeline.of(events, began=0.0, until=0.0, before=before)

    return make


def test_the_traffic_is_known_from_the_beginning(tell):
    timeline = tell((Name.TRAFFIC_CHANGED, {"traffic": {"old": 95, "new": 5}, "copies": {}}), before={"old": 100})
    assert timeline.traffic == (Shares(0.0, {"old": 100}), Shares(1.0, {"old": 95, "new": 5}))
    assert (timeline.began, timeline.until, timeline.revisions) == (0.0, 1.0, ("old", "new"))


@pytest.mark.parametrize(
    "fields",
    [
        {"traffic": {"old": 100}, "copies": {"new": 20}},
        {"traffic": {"weights": {"old": 100, "new": 0}, "shadow": {"new": 20}, "key": ""}},
    ],
)
def test_copies_are_read_from_plain_and_from_whole_tables(tell, fields):
    (shares,) = tell((Name.TRAFFIC_CHANGED, fields)).traffic
    assert shares == Shares(1.0, {"old": 100}, {"new": 20})


def test_a_first_revision_has_everything_when_it_is_promoted(tell):
    assert tell((Name.ROLLOUT_PROMOTED, {"revision": "v1"})).traffic == (Shares(1.0, {"v1": 100}),)
    changed = (Name.TRAFFIC_CHANGED, {"traffic": {"v1": 100}})
    assert len(tell(changed, (Name.ROLLOUT_PROMOTED, {"revision": "v1"})).traffic) == 1


def test_a_look_is_read_with_its_gates(tell):
    fields = {"step": 1, "percent": 25, "elapsed": 2.5, "verdict": "pass", "gates": [to_json(SHARE)]}
    (look,) = tell((Name.ROLLOUT_LOOK, fields)).looks
    assert (look.at, look.step, look.percent, look.elapsed, look.verdict) == (1.0, 1, 25, 2.5, Verdict.PASS)
    assert (look.gate("error_rate <= 1%"), look.gate("other")) == (SHARE, None)


def test_turns_keep_their_verdicts_and_reasons(tell):
    verdict = (Name.ROLLOUT_VERDICT, {"verdict": "fail", "reason": "slow"})
    turns = tell(verdict, (Name.ROLLOUT_ROLLED_BACK, {"kind": "rollback"}), (Name.REVISION_READY, {})).turns
    assert [(turn.verdict, turn.reason, turn.asked) for turn in turns] == [
        (Verdict.FAIL, "slow", False),
        (None, "", True),
    ]


def test_no_table_is_no_traffic():
    assert weights(None) == ({}, {})


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (SHARE, ("14 of 1,200", "1.20 %", "0.20 to 3.00 %")),
        (SECONDS, ("1,200", "90.1 ms", "80 to 100 ms")),
        (OUTCOME, ("500", "0.31", "-0.01 to +0.03")),
        (GateResult("mine", Verdict.BLIND), (NOTHING,) * 3),
    ],
)
def test_the_figures_of_a_gate_are_written_in_their_unit(result, shown):
    assert (counted(result), quantity(result, result.value), interval(result)) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, NOTHING), (0, "< 0.01"), (1, "1"), (9.96, "10"), (1000, "1e3"), (1e300, "1e300")]
)
def test_evidence_is_written_in_few_digits(value, shown):
    assert e_value(value) == shown


@pytest.mark.parametrize(("rate", "shown"), [(0.0, "0 %"), (0.00005, "0.005 %"), (0.0001, "0.010 %"), (0.5, "50.0 %")])
def test_small_rates_keep_their_digits(rate, shown):
    assert quantity(SHARE, rate) == shown


def test_a_table_of_text_is_aligned_and_one_row_is_one_line():
    shown = table([("a", 12_345, "1.5 %", "x\ny"), ("bcd", None, "", "1.2.0")], ("name", "n", "rate", "why"))
    assert shown.splitlines() == [
        "name       n   rate  why",
        "a     12,345  1.5 %  x y",
        f"bcd        {NOTHING}         1.2.0",
    ]


def test_an_empty_table_of_text_has_its_head():
    assert table([], ("one", "two")) == "one  two"
