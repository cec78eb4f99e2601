"""Means of outcomes, and their intervals at all looks together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.stats.means import FEWEST, Tally, compare_means, mean_interval

RUNS = 300
LOOKS = range(FEWEST, 5001, 100)
# Misses of a right interval in 300 runs exceed this with a probability below 0.001 (binomial, 5 %).
MOST_MISSES = 27

OUTCOMES = {
    "rare": lambda rng, n: (rng.random(n) < 0.02).astype(float),
    "even": lambda rng, n: (rng.random(n) < 0.5).astype(float),
    "almost sure": lambda rng, n: (rng.random(n) < 0.99).astype(float),
    "graded": lambda rng, n: rng.beta(2, 5, n),
}
MEANS = {"rare": 0.02, "even": 0.5, "almost sure": 0.99, "graded": 2 / 7}


def tallies(outcomes: np.ndarray) -> list[Tally]:
    totals, squares = outcomes.cumsum(), (outcomes**2).cumsum()
    return [Tally(n, float(totals[n - 1]), float(squares[n - 1])) for n in LOOKS]


@pytest.mark.parametrize("kind", OUTCOMES)
def test_fifty_looks_together_miss_the_mean_with_about_alpha_at_most(kind):
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(RUNS):
        intervals = map(mean_interval, tallies(OUTCOMES[kind](rng, LOOKS[-1])))
        missed += any(not low <= MEANS[kind] <= high for low, high in intervals)
    assert missed <= MOST_MISSES


def test_two_equal_revisions_are_told_apart_with_alpha_at_most_and_unequal_ones_soon():
    rng = np.random.default_rng(8)
    false, found = 0, []
    for _ in range(RUNS):
        stable, same, better = (tallies((rng.random(LOOKS[-1]) < rate).astype(float)) for rate in (0.3, 0.3, 0.4))
        false += any(
            compare_means(new, old)[0] > 0 or compare_means(new, old)[1] < 0
            for new, old in zip(same, stable, strict=True)
        )
        lows = [compare_means(new, old)[0] > 0 for new, old in zip(better, stable, strict=True)]
        found.append(LOOKS[lows.index(True)] if any(lows) else math.inf)
    assert false <= MOST_MISSES
    assert 500 < np.median(found) < 1500


def test_an_interval_is_the_formula_as_it_is_printed():
    tally = Tally(1000, 300.0, 300.0)
    r2 = (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 1000
    sd = math.sqrt(301 / 1002 - (301 / 1002) ** 2)
    half = sd * math.sqrt(2 * (1000 * r2 + 1) / (1000**2 * r2) * math.log(math.sqrt(1000 * r2 + 1) / 0.05))
    assert mean_interval(tally) == pytest.approx((0.3 - half, 0.3 + half))


def test_a_difference_is_between_the_furthest_ends_of_two_intervals_with_half_the_error_each():
    new, stable = Tally(900, 400.0, 400.0), Tally(2000, 700.0, 650.0)
    (low, high), (old_low, old_high) = mean_interval(new, 0.01), mean_interval(stable, 0.01)
    assert compare_means(new, stable, 0.02) == (low - old_high, high - old_low)


def test_few_outcomes_say_nothing_and_equal_ones_are_no_certainty():
    assert mean_interval(Tally()) == (0.0, 1.0)
    assert mean_interval(Tally.of([1.0] * (FEWEST - 1))) == (0.0, 1.0)
    assert compare_means(Tally(), Tally.of([0.0] * 5000))[1] == 1.0
    low, high = mean_interval(Tally.of([1.0] * FEWEST))
    assert 0.5 < low < 0.98
    assert high == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_tally_knows_the_mean(some):
    assert Tally.of(some).mean == pytest.approx(np.mean(some))


@given(st.integers(0, 10**9), st.floats(0, 1), st.sampled_from([0.05, 0.001, 0.3]))
def test_no_counts_are_too_large(count, mean, alpha):
    tally = Tally(count, count * mean, count * mean)
    low, high = mean_interval(tally, alpha)
    assert 0 <= low <= high <= 1


def test_nothing_has_no_mean():
    assert Tally().mean is None


@pytest.mark.parametrize("value", [1.2, -0.1, math.nan])
def test_an_outcome_outside_zero_and_one_is_refused(value):
    with pytest.raises(ValueError, match="outcome"):
        Tally.of([0.5, value])


@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha is"):
        mean_interval(Tally(), alpha)
