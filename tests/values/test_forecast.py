"""Forecasts: the figures that were published for the method, what accumulates over steps, and what is warned of."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from modeldeploy.engine import sequential
from modeldeploy.engine.evidence import Evidence
from modeldeploy.errors import ConfigurationError
from modeldeploy.stats.eprocess import Stratum
from modeldeploy.values.forecast import rough_duration
from modeldeploy.values.gate import Gate, Verdict
from modeldeploy.values.rollout import RolloutPolicy

HOUR = 3600.0


def one(gate, percent=5, **options):
    return RolloutPolicy.canary((percent,), gates=[gate], **options)


def step(policy, *, rps=2, base_rate=0.01, at=0):
    return policy.forecast(rps=rps, base_rate=base_rate).steps[at]


# ---------------------------------------------------------------- figures


def test_a_doubling_at_a_small_share_of_little_traffic_takes_hours():
    """The figures of the derivation: 2.3 h at 2 requests/s, 1 % errors and a 5 % share; about 23 h at 0.1 % errors."""
    gate = "error_rate <= 1x"
    assert step(one(gate)).detect_seconds == pytest.approx(2.3 * HOUR, rel=0.02)
    assert step(one(gate), base_rate=0.001).detect_seconds == pytest.approx(23 * HOUR, rel=0.02)


@pytest.mark.parametrize(("percent", "events"), [(5, 174), (25, 55), (50, 53)])
def test_a_larger_share_needs_fewer_bad_events_to_show_a_doubling(percent, events):
    share = percent / 100
    found = step(one("error_rate <= 1x", percent)).detect_requests * 0.01 * (1 - share + 2 * share)
    assert found == pytest.approx(events, abs=1)


def test_a_service_without_errors_passes_by_its_rate_alone():
    """The simulated median was 380 answers of the new revision."""
    found = step(one("error_rate <= 1x"), base_rate=0)
    assert math.isinf(found.detect_seconds)
    assert found.pass_requests * 0.05 == pytest.approx(440, rel=0.15)


def test_with_a_limit_both_must_be_broken():
    relative, absolute = step(one("error_rate <= 1x")), step(one("error_rate <= 1%"))
    assert absolute.detect_requests == pytest.approx(relative.detect_requests)
    spare = step(one("error_rate <= 5%"))
    assert spare.detect_requests < relative.detect_requests
    assert spare.pass_requests < relative.pass_requests


@pytest.mark.parametrize(("gate", "base_rate"), [("p95_latency <= 1.2x", 0.05), ("p50_latency <= 1.2x", 0.5)])
def test_a_latency_relative_to_stable_is_bad_as_often_as_stables_quantile_says(gate, base_rate):
    fast = step(one("error_rate <= 1x"), base_rate=base_rate).pass_requests
    assert step(one(gate), base_rate=0).pass_requests == pytest.approx(max(fast, 1000))


def test_more_than_stable_may_be_tolerated():
    policy = one("error_rate <= 3x")
    assert step(policy).detect_requests > step(one("error_rate <= 1x")).detect_requests


def test_gates_share_alpha():
    alone, shared = one("error_rate <= 1x"), RolloutPolicy.canary((5,), gates=["error_rate <= 1x", "latency <= 1.2x"])
    ratio = step(shared).detect_requests / step(alone).detect_requests
    assert ratio == pytest.approx(math.log(40) / math.log(20))


@pytest.mark.parametrize(
    ("gate", "rate"), [("error_rate <= 0%", 0.01), ("error_rate <= 100%", 0.01), ("p99_latency <= 80ms", 0)]
)
def test_limits_at_the_edge_are_foreseen(gate, rate):
    found = step(one(gate), base_rate=rate)
    assert 0 < found.pass_seconds < math.inf


def test_time_follows_the_traffic():
    slow, fast = (one("error_rate <= 1%").forecast(rps=rps) for rps in (2, 200))
    assert slow.steps[0].pass_seconds == pytest.approx(100 * fast.steps[0].pass_seconds)


@pytest.mark.parametrize(
    ("gate", "percent", "base_rate", "ratio"),
    [
        ("error_rate <= 1x", 50, 0.01, 2),
        ("error_rate <= 1%", 25, 0.01, 2),
        ("error_rate <= 1x", 25, 0.01, 1),
        ("error_rate <= 1%", 25, 0.001, 1),
    ],
)
def test_the_analysis_itself_takes_about_as_long_as_foretold(gate, percent, base_rate, ratio):
    """Medians of 25 simulated rollouts; over more of them they are 0.7 to 1.3 times the forecast."""
    policy = one(gate, percent)
    found = step(policy, base_rate=base_rate)
    wanted, foretold = (Verdict.FAIL, found.detect_requests) if ratio > 1 else (Verdict.PASS, found.pass_requests)
    rng = np.random.default_rng(7)
    took = [decided(policy, (base_rate, base_rate * ratio), rng, round(foretold / 30)) for _run in range(25)]
    assert sum(verdict is wanted for verdict, _requests in took) >= 22
    assert 0.6 < statistics.median(requests for _verdict, requests in took) / foretold < 1.6


def decided(policy, rates, rng, every):
    """Let requests come until the gate decides, looking once in ``every``; gives the verdict and the requests."""
    (gate,), share, counts, requests = policy.gates, policy.steps[0], np.zeros(4, dtype=int), 0
    while True:
        requests += every
        new = rng.binomial(every, share / 100)
        counts += [new, rng.binomial(new, rates[1]), every - new, rng.binomial(every - new, rates[0])]
        strata = {str(gate): (Stratum(share, 100 - share, *map(int, counts)),)}
        evidence = Evidence(here=int(counts[0]), strata=strata)
        (result,) = sequential.judge([gate], evidence, policy.analysis, min_sample=policy.min_sample)
        if result.verdict is not Verdict.INCONCLUSIVE:
            return result.verdict, requests


# ---------------------------------------------------------------- whole policies


def test_evidence_is_carried_over_the_steps():
    policy = RolloutPolicy.canary((25, 50), soak=60, gates=["error_rate <= 1x"])
    found = policy.forecast(rps=20, base_rate=0.01)
    assert found.seconds == pytest.approx(found.steps[0].pass_seconds + 60)
    hurried = RolloutPolicy.canary((5, 50), soak=0, gates=["error_rate <= 1x"], min_sample=1)
    assert hurried.forecast(rps=20).seconds == pytest.approx(hurried.forecast(rps=20).steps[0].pass_seconds, rel=0.01)


def test_a_policy_without_gates_takes_its_soak():
    found = RolloutPolicy.canary((5, 50), soak=60).forecast(rps=1)
    assert (found.steps, found.seconds, found.warnings) == ((), 120, ())
    assert "no gate that can be foreseen" in str(found)
    assert RolloutPolicy.all_at_once().forecast(rps=1).seconds == 0


def test_answers_are_compared_while_copies_are_sent():
    policy = RolloutPolicy.shadow(50, gates=["disagreement <= 5%", "error_rate <= 1%"], then=(10,))
    found = policy.forecast(rps=20, base_rate=0.001)
    assert [(each.percent, each.gate) for each in found.steps] == [
        (0, "disagreement <= 5%"),
        (0, "error_rate <= 1%"),
        (10, "error_rate <= 1%"),
    ]
    assert "copies  disagreement" in str(found)


def test_an_ab_test_takes_its_time_at_most():
    assert RolloutPolicy.ab_test(key="id", until=3600).forecast(rps=1).seconds == 3600


def test_a_custom_gate_is_not_foreseen():
    policy = RolloutPolicy.canary((5,), soak=30, gates=[Gate.custom(lambda look: True)])
    assert policy.forecast(rps=1).steps == ()


@pytest.mark.parametrize(("analysis", "seconds"), [("threshold", 500), ("mannwhitney", 500)])
def test_other_analyses_wait_for_their_least_sample(analysis, seconds):
    assert step(one("error_rate <= 1x", analysis=analysis)).pass_seconds == seconds
    slow = one("error_rate <= 1x", analysis="mannwhitney", interval=60)
    assert step(slow).pass_seconds == 20 * 60


def test_after_a_whole_switch_only_the_rate_counts():
    found = RolloutPolicy.blue_green(bake=600, gates=["error_rate <= 1.5x"]).forecast(rps=100, base_rate=0.01)
    assert [each.percent for each in found.steps] == [100]
    assert found.seconds == 600
    assert found.warnings == ()


# ---------------------------------------------------------------- warnings


def test_a_verdict_that_comes_too_late_is_warned_of_with_what_helps():
    (warning,) = one("error_rate <= 1x").forecast(rps=20, base_rate=0.01).warnings
    assert warning.startswith(
        "at 5 % gate 'error_rate <= 1x' needs about 22 min, and after 10 min the rollout pauses: "
    )
    assert "start at 25 %; set max_soak=1306; state an absolute limit" in warning
    assert not one("error_rate <= 1x", max_soak=1306).forecast(rps=20, base_rate=0.01).warnings
    assert not one("error_rate <= 1x", percent=25).forecast(rps=20, base_rate=0.01).warnings


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"on_inconclusive": "promote"}, "goes on unproven"),
        ({"on_inconclusive": "rollback"}, "goes back"),
        ({"percent": 1, "min_sample": 50}, "ask for less than min_sample=50"),
    ],
)
def test_a_warning_says_what_happens_then(options, part):
    (warning,) = one("error_rate <= 1x", **options).forecast(rps=1).warnings
    assert part in warning


def test_a_bake_that_is_too_short_to_see_anything_is_warned_of():
    (warning,) = RolloutPolicy.blue_green(bake=60, gates=["error_rate <= 1%"]).forecast(rps=1).warnings
    assert "bake ends after 60 s" in warning
    (warning,) = RolloutPolicy.blue_green(bake=60, gates=["error_rate <= 2x"]).forecast(rps=1, base_rate=0).warnings
    assert "never" in warning


def test_that_answers_never_differ_cannot_be_shown():
    policy = RolloutPolicy.shadow(gates=["disagreement <= 0%"])
    (warning,) = policy.forecast(rps=1).warnings
    assert "comes to no verdict" in warning
    assert "with room to spare" in warning


# ---------------------------------------------------------------- shown and refused


def test_a_forecast_reads_as_a_table():
    lines = repr(one("error_rate <= 1x").forecast(rps=2)).splitlines()
    assert lines[0] == "at 2 requests/s of which 1 % are bad"
    assert lines[1].split("  ")[:2] == ["share", "gate"]
    assert "16,565 requests, 2.3 h" in lines[2]
    assert lines[3].startswith("in all 3.6 h")
    assert lines[4].startswith("warning: at 5 %")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (172800, "2.0 days"),
        (math.inf, "never"),
    ],
)
def test_spans_are_written_roughly(seconds, text):
    assert rough_duration(seconds) == text


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"rps": 0}, "rps"),
        ({"rps": math.inf}, "rps"),
        ({"rps": 1, "base_rate": 1}, "base_rate"),
        ({"rps": 1, "base_rate": -1}, "base_rate"),
        ({"rps": "5"}, "rps"),
        ({"rps": 1, "base_rate": "1%"}, "base_rate"),
    ],
)
def test_impossible_traffic_is_refused(options, part):
    with pytest.raises(ConfigurationError, match=part) as caught:
        RolloutPolicy.canary().forecast(**options)
    assert caught.value.hint
