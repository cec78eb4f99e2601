"""Intervals of rates hold at all looks together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from modeldeploy.stats.intervals import rate_interval


def misses(rate: float, steps: int) -> float:
    """The exact probability that the interval ever leaves the rate out, looking after every answer."""
    alive, reached = np.array([1.0]), 0.0
    for step in range(1, steps + 1):
        alive = np.append(alive * (1 - rate), 0.0) + np.append(0.0, alive * rate)
        for bad in np.flatnonzero(alive > 1e-9):
            low, high = rate_interval(int(bad), step)
            if not low <= rate <= high:
                reached += float(alive[bad])
                alive[bad] = 0.0
    return reached


@pytest.mark.parametrize("rate", [0.02, 0.4])
def test_looking_after_every_answer_misses_the_rate_with_less_than_alpha(rate):
    assert 0.001 < misses(rate, 60) <= 0.05


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.sampled_from([0.05, 0.01, 0.2]))
def test_an_interval_encloses_the_observed_rate_and_stays_within_zero_and_one(bad, seen, alpha):
    low, high = rate_interval(bad, seen, alpha)
    observed = min(1.0, bad / seen)
    assert 0 <= low <= observed + 1e-12
    assert observed - 1e-12 <= high <= 1


@given(st.integers(0, 300), st.integers(0, 300))
def test_swapping_good_and_bad_turns_the_interval_round(bad, good):
    low, high = rate_interval(bad, bad + good)
    assert rate_interval(good, bad + good) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(("bad", "seen"), [(3, 300), (40, 300), (1000, 100_000)])
def test_holding_at_every_look_costs_little_more_than_twice_the_width(bad, seen):
    low, high = rate_interval(bad, seen)
    once = beta.ppf([0.025, 0.975], bad + 0.5, seen - bad + 0.5)
    assert 1 < (high - low) / (once[1] - once[0]) < 2.2


def test_more_answers_and_less_certainty_make_it_narrower():
    widths = [high - low for low, high in (rate_interval(10, 1000), rate_interval(100, 10_000))]
    assert widths[1] < widths[0] / 2
    assert math.dist(rate_interval(10, 1000, 0.2), (0.01, 0.01)) < math.dist(
        rate_interval(10, 1000, 0.01), (0.01, 0.01)
    )


def test_nothing_seen_leaves_everything_possible():
    assert rate_interval(0, 0) == (0.0, 1.0)
    assert rate_interval(0, 5)[0] == 0.0
    assert rate_interval(5, 5)[1] == 1.0
    assert rate_interval(7, 5) == rate_interval(7, 7)


@pytest.mark.parametrize("alpha", [0, 1, -0.5, math.nan])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha is"):
        rate_interval(1, 2, alpha)
