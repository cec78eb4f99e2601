"""The rank test agrees with scipy's, and its shift with the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from modeldeploy.stats.mannwhitney import rank_test

tied = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=25)
untied = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=25)


@given(st.one_of(st.tuples(tied, tied), st.tuples(untied, untied)))
def test_it_agrees_with_scipy(series):
    new, stable = series
    ours = rank_test(new, stable)
    if len({*new, *stable}) == 1:
        assert (ours.p_value, ours.p_greater) == (1.0, 1.0)
        return
    both = mannwhitneyu(new, stable, alternative="two-sided", method="asymptotic")
    greater = mannwhitneyu(new, stable, alternative="greater", method="asymptotic")
    assert ours.u == both.statistic
    assert ours.p_value == pytest.approx(both.pvalue, abs=1e-9)
    assert ours.p_greater == pytest.approx(greater.pvalue, abs=1e-9)


@given(untied, untied)
def test_the_shift_is_the_median_of_all_differences_within_its_bounds(new, stable):
    ours = rank_test(new, stable)
    assert ours.shift == pytest.approx(np.median(np.subtract.outer(new, stable)))
    assert ours.low <= ours.shift <= ours.high


@given(untied, untied)
def test_swapping_the_series_turns_everything_round(new, stable):
    ours, other = rank_test(new, stable), rank_test(stable, new)
    assert (ours.low, ours.high, ours.shift) == (-other.high, -other.low, pytest.approx(-other.shift))
    assert ours.p_value == pytest.approx(other.p_value)


def test_the_bounds_hold_the_true_shift_with_the_confidence_asked_for():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        ours = rank_test((rng.normal(0, 1, 20) + 1).tolist(), rng.normal(0, 1, 15).tolist())
        held += ours.low <= 1 <= ours.high
    # Of 300 right intervals at 98 %, fewer than 285 hold with a probability below 0.001.
    assert 285 <= held < 300


def test_a_series_that_is_clearly_higher_is_called_so_and_a_like_one_is_not():
    stable = [1.0 + 0.01 * step for step in range(20)]
    assert rank_test([value + 1 for value in stable], stable).is_high()
    assert not rank_test(stable, stable).is_high()
    assert not rank_test([value - 1 for value in stable], stable).is_high()


def test_few_values_leave_every_shift_possible():
    ours = rank_test([1.0, 2.0], [0.0])
    assert (ours.low, ours.high) == (-math.inf, math.inf)
    assert not ours.is_high()


@pytest.mark.parametrize(
    ("new", "stable", "named"), [([], [1.0], "new"), ([1.0], [], "stable"), ([math.nan], [1.0], "new")]
)
def test_series_that_cannot_be_ranked_are_refused_by_name(new, stable, named):
    with pytest.raises(ValueError, match=named):
        rank_test(new, stable)
