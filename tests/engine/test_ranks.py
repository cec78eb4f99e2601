"""The rank analysis: series of looks against each other, for compatibility."""

from __future__ import annotations

import pytest

from modeldeploy.engine.evidence import Evidence
from modeldeploy.engine.ranks import LEAST_LOOKS, MOST_LOOKS, judge, note
from modeldeploy.values.gate import Gate, Verdict
from modeldeploy.values.metrics import Window, bucket_of

GATE = Gate.parse("error_rate <= 1%")


def window(requests=1_000, errors=0, latency=0.01):
    return Window("r", 0.0, 1.0, requests, errors, {str(bucket_of(latency)): requests} if requests else {})


def looked(gate, pairs):
    evidence = Evidence()
    for new, stable in pairs:
        evidence = note(evidence, gate, new, stable)
    return evidence


def rates(new, stable, looks=LEAST_LOOKS):
    """Looks whose rates scatter a little, as rates do."""
    return [(window(errors=new + look % 3), window(errors=stable + look % 3)) for look in range(looks)]


def test_a_series_that_is_shifted_beyond_the_limit_fails():
    result = judge(GATE, looked(GATE, rates(50, 2)), window(errors=50), window(errors=2), min_sample=50)
    assert result.verdict is Verdict.FAIL
    assert "after 20 looks; shifted by" in result.reason


def test_a_shift_within_the_limit_passes():
    assert (
        judge(GATE, looked(GATE, rates(5, 1)), window(errors=5), window(errors=1), min_sample=50).verdict
        is Verdict.PASS
    )


def test_a_broken_limit_without_a_shift_passes():
    """Stable is as bad, so going back would not help."""
    assert (
        judge(GATE, looked(GATE, rates(50, 50)), window(errors=50), window(errors=50), min_sample=50).verdict
        is Verdict.PASS
    )


def test_a_relative_limit_is_stables_value_times_so_much():
    gate = Gate.parse("error_rate <= 2x")
    result = judge(gate, looked(gate, rates(50, 10)), window(errors=50), window(errors=10), min_sample=50)
    assert (result.verdict, result.limit) == (Verdict.FAIL, 0.02)


@pytest.mark.parametrize(("looks", "requests"), [(LEAST_LOOKS - 1, 1_000), (LEAST_LOOKS, 49), (LEAST_LOOKS, 0)])
def test_too_few_looks_or_requests_say_nothing(looks, requests):
    result = judge(GATE, looked(GATE, rates(50, 2, looks)), window(requests), window(), min_sample=50)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason == f"{looks} of 20 looks, {requests} of 50 requests"


def test_a_look_in_which_one_of_them_was_silent_is_not_noted():
    assert looked(GATE, [(window(), window(0)), (window(0), window())]).series == {}


def test_the_oldest_looks_are_forgotten():
    series = looked(GATE, rates(3, 1, MOST_LOOKS + 7)).series[str(GATE)]
    assert len(series) == MOST_LOOKS
    assert series == looked(GATE, rates(3, 1, MOST_LOOKS + 7)[7:]).series[str(GATE)]
