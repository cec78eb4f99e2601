"""Gates: two windows to a verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.engine.gates import judge, measure, overall, show
from modeldeploy.values.gate import Gate, GateResult, Metric, Verdict
from modeldeploy.values.metrics import Window, bucket_of

ERRORS = Gate.parse("error_rate <= 1%")
P95 = Gate.parse("p95_latency <= 1.2x")


def window(requests=100, errors=0, latency=0.01):
    return Window("v", 0.0, 1.0, requests, errors, {str(bucket_of(latency)): requests} if requests else {})


@pytest.mark.parametrize(
    ("errors", "verdict"), [(0, Verdict.PASS), (1, Verdict.PASS), (2, Verdict.FAIL), (100, Verdict.FAIL)]
)
def test_an_absolute_limit_decides_by_itself(errors, verdict):
    assert judge(ERRORS, window(errors=errors), None, min_sample=50).verdict is verdict


def test_too_small_a_sample_says_nothing():
    result = judge(ERRORS, window(requests=49, errors=49), None, min_sample=50)
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "49 of 50 requests")


def test_no_requests_say_nothing():
    result = judge(ERRORS, window(requests=0), None, min_sample=1)
    assert (result.verdict, result.value, result.sample) == (Verdict.INCONCLUSIVE, None, 0)


@pytest.mark.parametrize(("latency", "verdict"), [(0.010, Verdict.PASS), (0.0105, Verdict.PASS), (0.02, Verdict.FAIL)])
def test_a_relative_limit_is_held_against_stable(latency, verdict):
    result = judge(P95, window(latency=latency), window(), min_sample=50)
    assert result.verdict is verdict
    assert "ms against a limit of" in result.reason


@pytest.mark.parametrize("stable", [None, window(requests=0), window(requests=49)])
def test_a_relative_limit_needs_enough_of_stable(stable):
    result = judge(P95, window(), stable, min_sample=50)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason.endswith("of 50 requests on stable")


def test_the_reason_has_the_figures():
    assert (
        judge(ERRORS, window(errors=5), None, min_sample=50).reason
        == "5.00 % against a limit of 1.00 % after 100 requests"
    )


def test_metrics_are_read_and_written():
    assert measure(Metric.ERROR_RATE, window(errors=5)) == 0.05
    assert measure(Metric.P99_LATENCY, window(requests=0)) is None
    assert show(Metric.P50_LATENCY, 0.0123) == "12.3 ms"


def test_disagreement_is_a_share_of_what_was_compared():
    seen = Window("v", 0.0, 1.0, 90, compared=80, disagreed=4)
    assert measure(Metric.DISAGREEMENT, seen) == 0.05
    assert measure(Metric.DISAGREEMENT, window()) is None
    result = judge(Gate.parse("disagreement <= 4%"), seen, None, min_sample=80)
    assert (result.verdict, result.sample) == (Verdict.FAIL, 80)
    assert judge(Gate.parse("disagreement <= 4%"), seen, None, min_sample=81).verdict is Verdict.INCONCLUSIVE


def results(*verdicts):
    return [GateResult("g", verdict) for verdict in verdicts]


@given(st.lists(st.sampled_from(list(Verdict))))
def test_a_failure_decides_then_any_doubt(verdicts):
    expected = next(
        (each for each in (Verdict.FAIL, Verdict.BLIND, Verdict.INCONCLUSIVE) if each in verdicts), Verdict.PASS
    )
    assert overall(results(*verdicts)) is expected


@given(st.integers(1, 500), st.data())
def test_more_errors_never_make_a_verdict_better(requests, data):
    errors = sorted(data.draw(st.lists(st.integers(0, requests), min_size=2, max_size=2)))
    few, many = (judge(ERRORS, window(requests, count), None, min_sample=50).verdict for count in errors)
    assert not (few is Verdict.FAIL and many is Verdict.PASS)
