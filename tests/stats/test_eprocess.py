"""The e-values are what they claim, by exact enumeration: mean 1 at the edge of their hypothesis, at most 1 inside, however one stops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom, multinomial

from modeldeploy.stats.eprocess import (
    BETTER,
    RARER,
    WORSE,
    Stratum,
    log_fail_both,
    log_fail_rate,
    log_fail_ratio,
    log_mean,
    log_pass_rate,
    log_pass_ratio,
)

SHARES = [(1, 99), (5, 95), (20, 100), (25, 75), (50, 50), (90, 10)]
ROUNDING = 1e-12
ALPHA = 0.05


def theta(ratio: float, new: int, stable: int) -> float:
    return ratio * new / (ratio * new + stable)


def mean_over_events(
    evidence: Callable[[list[Stratum]], float], shares: Sequence[tuple[int, int]], ratio: float, events: int
) -> float:
    """The exact mean when so many bad events fall in each stratum, each on the new revision with probability theta(ratio)."""
    splits = itertools.product(range(events + 1), repeat=len(shares))
    return math.fsum(_term(evidence, shares, ratio, events, split) for split in splits)


def _term(evidence, shares, ratio, events, split) -> float:
    chance = math.prod(binom.pmf(bad, events, theta(ratio, *share)) for bad, share in zip(split, shares, strict=True))
    strata = [Stratum(*share, new_bad=bad, stable_bad=events - bad) for bad, share in zip(split, shares, strict=True)]
    return chance * math.exp(evidence(strata))


# ---------------------------------------------------------------- the ratio


@pytest.mark.parametrize("events", [1, 7, 40])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("tolerance", [0.8, 1.0, 1.25, 3.0])
def test_fail_evidence_has_mean_one_at_the_tolerated_ratio_and_less_below(share, tolerance, events):
    def evidence(strata):
        return log_fail_ratio(strata, tolerance)

    assert mean_over_events(evidence, [share], tolerance, events) == pytest.approx(1.0, abs=ROUNDING)
    for inside in (0.0, 0.3, 0.8, 0.99):
        assert mean_over_events(evidence, [share], inside * tolerance, events) < 1


@pytest.mark.parametrize("events", [1, 7, 40])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("max_ratio", [1.2, 2.0, 4.0])
def test_pass_evidence_has_mean_one_at_the_largest_ratio_and_less_above(share, max_ratio, events):
    def evidence(strata):
        return log_pass_ratio(strata, max_ratio)

    assert mean_over_events(evidence, [share], max_ratio, events) == pytest.approx(1.0, abs=ROUNDING)
    for inside in (1.01, 1.5, 10.0):
        assert mean_over_events(evidence, [share], inside * max_ratio, events) < 1


@pytest.mark.parametrize(("evidence", "ratio"), [(log_fail_ratio, 1.0), (log_pass_ratio, 2.0)])
def test_the_mean_stays_one_over_strata_of_different_shares(evidence, ratio):
    assert mean_over_events(evidence, [(5, 95), (25, 75), (50, 50)], ratio, 6) == pytest.approx(1.0, abs=ROUNDING)


def test_a_better_revision_gives_the_evidence_of_the_published_table():
    """At 0.8 of stable's bad events: published 0.20 to 0.97; here down to 0.20, and up to 0.99 with a single event."""
    means = [mean_over_events(log_fail_ratio, [share], 0.8, events) for share in SHARES for events in (1, 10, 40)]
    assert (min(means), max(means)) == pytest.approx((0.20, 0.99), abs=0.005)


def chance_to_reach(log_evidence: Callable[[int, int], float], hit: float, steps: int, threshold: float) -> float:
    """The exact probability that evidence of (hits, misses) is ever at least the threshold, looking after every step."""
    alive = np.array([1.0])
    reached = 0.0
    for step in range(1, steps + 1):
        alive = np.append(alive * (1 - hit), 0.0) + np.append(0.0, alive * hit)
        over = np.array([log_evidence(hits, step - hits) >= threshold for hits in range(step + 1)])
        reached += float(alive[over].sum())
        alive[over] = 0.0
    return reached


@pytest.mark.parametrize("share", [(5, 95), (50, 50)])
def test_looking_after_every_event_takes_a_revision_like_stable_back_with_less_than_alpha(share):
    def evidence(bad: int, good: int) -> float:
        return log_fail_ratio([Stratum(*share, new_bad=bad, stable_bad=good)])

    # Not far below either: the guarantee is not had by never deciding.
    assert 0.005 < chance_to_reach(evidence, theta(1.0, *share), 150, -math.log(ALPHA)) <= ALPHA


@pytest.mark.parametrize("share", [(5, 95), (50, 50)])
def test_looking_after_every_event_lets_a_twice_as_bad_revision_pass_with_less_than_beta(share):
    def evidence(bad: int, good: int) -> float:
        return log_pass_ratio([Stratum(*share, new_bad=bad, stable_bad=good)])

    assert 0.0005 < chance_to_reach(evidence, theta(2.0, *share), 150, -math.log(ALPHA)) <= ALPHA


def test_a_share_that_answers_to_the_evidence_changes_nothing():
    """The next share may depend on everything that was seen, as steps of a rollout do: the mean of the last evidence is 1 still."""

    def mean(strata: dict[tuple[int, int], list[int]], left: int) -> float:
        known = [Stratum(*share, new_bad=new, stable_bad=stable) for share, (new, stable) in strata.items()]
        log = log_fail_ratio(known)
        if not left or log >= math.log(5):
            return math.exp(log)
        share = (50, 50) if log < 0 else (5, 95)
        new, stable = strata.get(share, [0, 0])
        hit = theta(1.0, *share)
        worse = mean({**strata, share: [new + 1, stable]}, left - 1)
        return hit * worse + (1 - hit) * mean({**strata, share: [new, stable + 1]}, left - 1)

    assert mean({}, 10) == pytest.approx(1.0, abs=ROUNDING)


@pytest.mark.parametrize("total", [2, 13, 40])
def test_observed_shares_are_conservative(total):
    """Where only the requests of each are known, bad events fall as drawn from an urn: less spread than the evidence allows for."""
    means = [
        math.fsum(
            hypergeom.pmf(bad, total, new, events)
            * math.exp(log_fail_ratio([Stratum(new, total - new, new_bad=bad, stable_bad=events - bad)]))
            for bad in range(max(0, events - total + new), min(events, new) + 1)
        )
        for new in range(1, total)
        for events in range(total + 1)
    ]
    assert max(means) == pytest.approx(1.0, abs=ROUNDING)


# ---------------------------------------------------------------- the rate


def mean_over_answers(evidence: Callable[[list[Stratum]], float], rate: float, seen: int) -> float:
    return math.fsum(
        binom.pmf(bad, seen, rate) * math.exp(evidence([Stratum(5, 95, new_seen=seen, new_bad=bad)]))
        for bad in range(seen + 1)
    )


@pytest.mark.parametrize("seen", [1, 40])
@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05, 0.5, 0.79, 0.8, 0.95])
def test_fail_evidence_has_mean_one_at_the_limit_and_less_below(limit, seen):
    def evidence(strata):
        return log_fail_rate(strata, limit)

    assert mean_over_answers(evidence, limit, seen) == pytest.approx(1.0, abs=ROUNDING)
    for inside in (0.0, 0.5, 0.99):
        assert mean_over_answers(evidence, inside * limit, seen) < 1


@pytest.mark.parametrize("seen", [1, 40])
@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05, 0.5, 0.95])
def test_pass_evidence_has_mean_one_at_the_limit_and_less_above(limit, seen):
    def evidence(strata):
        return log_pass_rate(strata, limit)

    assert mean_over_answers(evidence, limit, seen) == pytest.approx(1.0, abs=ROUNDING)
    for inside in (0.01, 0.5, 1.0):
        assert mean_over_answers(evidence, limit + inside * (1 - limit), seen) < 1


@pytest.mark.parametrize("limit", [0.05, 0.5, 0.9])
def test_looking_after_every_answer_finds_a_rate_at_the_limit_too_high_with_less_than_alpha(limit):
    def evidence(bad: int, good: int) -> float:
        return log_fail_rate([Stratum(100, 0, new_seen=bad + good, new_bad=bad)], limit)

    assert chance_to_reach(evidence, limit, 150, -math.log(ALPHA)) <= ALPHA


def test_bets_on_what_cannot_be_are_left_out():
    """30 times 5 % is no probability; at 90 % even 1.25 times is none, and the bet is on 95 %."""
    strata = [Stratum(5, 95, new_seen=30, new_bad=9)]
    likely = [k for k in WORSE if k * 0.05 < 1]
    assert likely == list(WORSE[:-1])
    expected = sum(k**9 * ((1 - k * 0.05) / 0.95) ** 21 for k in likely) / len(likely)
    assert math.exp(log_fail_rate(strata, 0.05)) == pytest.approx(expected)
    midway = (0.95 / 0.9) ** 9 * (0.05 / 0.1) ** 21
    assert math.exp(log_fail_rate(strata, 0.9)) == pytest.approx(midway)


def test_the_ends_of_the_scale_are_proof_or_say_nothing():
    good, bad = [Stratum(100, 0, new_seen=3)], [Stratum(100, 0, new_seen=3, new_bad=3)]
    assert (log_fail_rate(good, 0), log_fail_rate(bad, 0)) == (0.0, math.inf)
    assert (log_fail_rate(good, 1), log_fail_rate(bad, 1)) == (0.0, 0.0)
    assert (log_pass_rate(good, 0), log_pass_rate(good, 1)) == (0.0, math.inf)
    assert log_pass_rate(bad, 0) == log_pass_rate(bad, 1) == pytest.approx(math.log(sum(f**3 for f in RARER) / 4))


# ---------------------------------------------------------------- both together


def outcomes(requests: int, share: float, new_rate: float, stable_rate: float) -> Iterator[tuple[float, Stratum]]:
    """Every split of so many requests into (new bad, new good, stable bad, stable good), with its probability."""
    chances = [share * new_rate, share * (1 - new_rate), (1 - share) * stable_rate, (1 - share) * (1 - stable_rate)]
    law = multinomial(requests, chances)
    for new_bad, new, stable_bad in itertools.product(range(requests + 1), repeat=3):
        if new_bad <= new and stable_bad <= requests - new:
            counts = (new_bad, new - new_bad, stable_bad, requests - new - stable_bad)
            stratum = Stratum(round(share * 100), round(100 - share * 100), new, new_bad, requests - new, stable_bad)
            yield float(law.pmf(counts)), stratum


def both_fail(stratum: Stratum, limit: float) -> float:
    return min(log_fail_ratio([stratum]), log_fail_rate([stratum], limit))


def both_pass(stratum: Stratum, limit: float) -> float:
    return log_mean([log_pass_ratio([stratum]), log_pass_rate([stratum], limit)])


@pytest.mark.parametrize(("new", "stable"), [(0.3, 0.3), (0.3, 0.5), (0.1, 0.1), (0.1, 0.01), (0.05, 0.0)])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_the_lesser_evidence_never_blames_who_is_like_stable_or_within_the_limit(share, new, stable):
    """Limit 10 %: no worse than stable in the first two, within the limit in the others (and worse than stable in the last)."""
    assert math.fsum(p * math.exp(both_fail(s, 0.1)) for p, s in outcomes(10, share, new, stable)) <= 1 + ROUNDING


@pytest.mark.parametrize(("new", "stable"), [(0.2, 0.1), (0.4, 0.2), (0.6, 0.1), (0.1, 0.05)])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_the_mean_of_both_never_favours_who_breaks_both_limits(share, new, stable):
    """Limits: twice stable's rate, and 10 %."""
    assert math.fsum(p * math.exp(both_pass(s, 0.1)) for p, s in outcomes(10, share, new, stable)) <= 1 + ROUNDING


@pytest.mark.parametrize(
    ("new", "stable", "later"), [(0.3, 0.3, 0.1), (0.1, 0.01, 0.1), (0.1, 0.1, 0.05), (0.3, 0.3, 0.3)]
)
def test_a_bake_without_stable_blames_nobody_who_stays_within_the_limit(new, stable, later):
    """Limit 10 % of ten requests beside stable and ten alone; in the last, alone is allowed what stable had."""
    allowed = max(0.1, later)
    bake = [(binom.pmf(bad, 10, later), Stratum(100, 0, 10, bad)) for bad in range(11)]
    beside = list(outcomes(6, 0.25, new, stable))
    mean = math.fsum(
        p * q * math.exp(log_fail_both([first, last], 0.1, allowed)) for p, first in beside for q, last in bake
    )
    assert mean <= 1 + ROUNDING


def test_a_revision_that_breaks_once_stable_is_gone_is_seen():
    healthy = [Stratum(5, 95, 600, 6, 11_400, 114), Stratum(50, 50, 6000, 60, 6000, 60)]
    bake = Stratum(100, 0, 30, 15)
    assert log_fail_both(healthy, 0.01) < 0
    assert log_fail_both([*healthy, bake], 0.01) > math.log(20)
    assert log_fail_both([*healthy, bake], 0.01, alone=0.5) < math.log(20)
    # With the lesser evidence of all it could never be: what the ratio knows ended with stable.
    assert min(log_fail_ratio([*healthy, bake]), log_fail_rate([*healthy, bake], 0.01)) < 0


def test_evidence_of_both_kinds_is_that_of_the_kind_there_is():
    beside, alone = Stratum(25, 75, 100, 30, 300, 20), Stratum(100, 0, 100, 30)
    assert log_fail_both([beside], 0.1) == min(log_fail_ratio([beside]), log_fail_rate([beside], 0.1))
    assert log_fail_both([alone], 0.1) == log_fail_rate([alone], 0.1)
    assert log_fail_both([], 0.1) == log_fail_both([Stratum(0, 100, 0, 0, 50, 5)], 0.1) == 0.0


def test_the_mean_of_both_is_one_where_both_limits_are_just_met():
    """Twice stable's rate, and 10 %."""
    mean = math.fsum(p * math.exp(both_pass(s, 0.1)) for p, s in outcomes(10, 0.25, 0.1, 0.05))
    assert mean == pytest.approx(1.0, abs=ROUNDING)


# ---------------------------------------------------------------- properties

counts = st.integers(0, 10**9)
strata_lists = st.lists(
    st.builds(Stratum, st.integers(0, 100), st.integers(0, 100), counts, counts, counts, counts), max_size=5
)
ratios = st.floats(0.01, 40)
rates = st.floats(0, 1)


@example([], 1.0, math.nextafter(1.0, 0.0))
@example([], 1.0, 1 - 2 * math.ulp(0.5))
@given(strata_lists, ratios, rates)
def test_no_counts_are_too_large(strata, ratio, rate):
    for log in (log_fail_ratio(strata, ratio), log_pass_ratio(strata, ratio)):
        assert math.isfinite(log)
    assert not math.isnan(log_fail_rate(strata, rate))
    assert not math.isnan(log_pass_rate(strata, rate))


small = st.integers(0, 30)


@given(st.integers(1, 99), small, small, st.floats(0.2, 5))
def test_the_ratio_evidence_is_the_formula_as_it_is_printed(percent, new, stable, ratio):
    share = (percent, 100 - percent)
    stratum = Stratum(*share, new_bad=new, stable_bad=stable)
    for evidence, bets in ((log_fail_ratio, WORSE), (log_pass_ratio, BETTER)):
        base = theta(ratio, *share)
        thetas = [theta(k * ratio, *share) for k in bets]
        expected = sum((t / base) ** new * ((1 - t) / (1 - base)) ** stable for t in thetas) / len(bets)
        assert math.exp(evidence([stratum], ratio)) == pytest.approx(expected, rel=1e-9)


def test_the_evidence_for_a_revision_bets_on_the_published_ratios_where_twice_is_the_limit():
    assert [2 * part for part in BETTER] == [0.5, 0.75, 1.0, 1.25, 1.5]


@given(st.integers(1, 99), small, small)
def test_a_bad_event_counts_against_whom_it_befell(percent, new, stable):
    def of(new_bad: int, stable_bad: int) -> list[Stratum]:
        return [Stratum(percent, 100 - percent, new_bad=new_bad, stable_bad=stable_bad)]

    assert log_fail_ratio(of(new, stable + 1)) < log_fail_ratio(of(new, stable)) < log_fail_ratio(of(new + 1, stable))
    assert log_pass_ratio(of(new, stable + 1)) > log_pass_ratio(of(new, stable)) > log_pass_ratio(of(new + 1, stable))


@given(st.integers(1, 99), small, small, small, small)
def test_a_stretch_may_be_cut_in_two_and_measured_in_any_unit(percent, new, stable, more_new, more_stable):
    share = (percent, 100 - percent)
    whole = [Stratum(*share, 90, new + more_new, 90, stable + more_stable)]
    parts = [Stratum(*share, 40, new, 50, stable), Stratum(7 * share[0], 7 * share[1], 50, more_new, 40, more_stable)]
    for evidence in (log_fail_ratio, log_pass_ratio):
        assert evidence(whole) == pytest.approx(evidence(parts), abs=1e-9)
    assert log_fail_rate(whole, 0.1) == log_fail_rate(parts, 0.1)
    assert log_pass_rate(whole, 0.1) == log_pass_rate(parts, 0.1)


def test_a_stretch_with_one_revision_only_speaks_of_its_rate_and_not_of_the_ratio():
    alone = [Stratum(100, 0, 1000, 50), Stratum(0, 100, 0, 0, 1000, 3), Stratum(0, 0)]
    assert (log_fail_ratio(alone), log_pass_ratio(alone)) == (0.0, 0.0)
    assert [each.share for each in alone] == [1.0, 0.0, 0.0]
    assert log_fail_rate(alone, 0.01) > math.log(20)


def test_a_unit_that_was_seen_early_and_went_bad_late_is_counted_once():
    split = [Stratum(5, 95, new_seen=100), Stratum(25, 75, new_seen=0, new_bad=4)]
    assert log_fail_rate(split, 0.01) == log_fail_rate([Stratum(25, 75, new_seen=100, new_bad=4)], 0.01)


def test_a_revision_that_always_fails_is_refuted_by_its_second_request():
    refuted = [log_fail_ratio([Stratum(5, 95, new_bad=bad)]) >= -math.log(ALPHA) for bad in (1, 2)]
    assert refuted == [False, True]


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=8))
def test_the_mean_lies_between_the_least_and_the_greatest(logs):
    assert min(logs) - 1e-9 <= log_mean(logs) <= max(logs) + 1e-9


def test_the_mean_knows_nothing_and_proof():
    assert log_mean([0.0, math.log(3)]) == pytest.approx(math.log(2))
    assert log_mean([-math.inf, math.log(4)]) == pytest.approx(math.log(2))
    assert log_mean([-math.inf, -math.inf]) == -math.inf
    assert log_mean([-math.inf, math.inf, 0.0]) == math.inf
    assert log_mean(iter([1000.0, 1000.0])) == 1000.0


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda: log_mean([]), "no e-values"),
        (lambda: Stratum(-1, 5), "new_share of a stratum is -1"),
        (lambda: Stratum(1, 5, stable_bad=-2), "stable_bad of a stratum is -2"),
        (lambda: log_fail_ratio([], 0), "tolerance is 0"),
        (lambda: log_pass_ratio([], math.inf), "max_ratio is inf"),
        (lambda: log_fail_ratio([], math.nan), "tolerance is nan"),
        (lambda: log_fail_rate([], 1.5), "limit is 1.5"),
        (lambda: log_pass_rate([], -0.1), "limit is -0.1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(act, named):
    with pytest.raises(ValueError, match=named):
        act()
