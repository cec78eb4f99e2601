"""The default analysis: what a gate says of given counts."""

from __future__ import annotations

import math

import pytest

from modeldeploy.engine.evidence import Evidence, events_of
from modeldeploy.engine.sequential import judge, ratio_broken
from modeldeploy.stats import eprocess
from modeldeploy.stats.eprocess import Stratum
from modeldeploy.values.analysis import Analysis
from modeldeploy.values.gate import Gate, Verdict
from modeldeploy.values.metrics import Window, bucket_of

ANALYSIS = Analysis()
ABSOLUTE, RELATIVE = Gate.parse("error_rate <= 1%"), Gate.parse("error_rate <= 1.5x")


def evidence(gate, *strata, here=1_000):
    return Evidence(here=here, strata={event.name: strata for event in events_of(gate)}, assigned=strata)


def ask(gate, *strata, here=1_000, min_sample=50, analysis=ANALYSIS, base=None):
    (result,) = judge([gate], evidence(gate, *strata, here=here), analysis, min_sample=min_sample, base=base)
    return result


def both(share, requests, new_rate, stable_rate):
    new = requests * share // 100
    stable = requests - new
    return Stratum(share, 100 - share, new, round(new * new_rate), stable, round(stable * stable_rate))


# ---------------------------------------------------------------- an absolute limit


def test_a_limit_that_holds_passes():
    result = ask(ABSOLUTE, both(50, 4_000, 0.002, 0.002))
    assert result.verdict is Verdict.PASS
    assert result.favour >= 20


def test_a_broken_limit_fails_where_stable_is_better():
    result = ask(ABSOLUTE, both(50, 2_000, 0.05, 0.005))
    assert result.verdict is Verdict.FAIL
    assert result.against >= 20
    assert "50 of 1000 requests failed, 5.00 % (at most 1 % may), stable 0.50 % of 1000" in result.reason


@pytest.mark.parametrize("requests", [100, 1_000, 10_000, 100_000])
def test_it_never_fails_while_stable_is_as_bad(requests):
    assert ask(ABSOLUTE, both(50, requests, 0.2, 0.2)).verdict is not Verdict.FAIL


@pytest.mark.parametrize("requests", [100, 1_000, 10_000, 100_000])
def test_it_never_fails_while_it_is_within_the_limit(requests):
    assert ask(ABSOLUTE, both(50, requests, 0.009, 0.0)).verdict is not Verdict.FAIL


def test_a_shared_outage_takes_nobody_back():
    """Ten times as many errors on both, for a while and under every share."""
    walked = [both(share, 4_000, rate, rate) for share in (5, 25, 50) for rate in (0.005, 0.05)]
    for gate in (ABSOLUTE, RELATIVE):
        assert ask(gate, *walked).verdict is not Verdict.FAIL


def test_one_that_fails_always_goes_back_after_a_handful_of_its_requests():
    """At 5 % of the traffic, where stable fails one in a thousand."""
    needed = next(
        count
        for count in range(1, 100)
        if ask(ABSOLUTE, Stratum(5, 95, count, count, 19 * count, 0), min_sample=1).verdict is Verdict.FAIL
    )
    assert needed <= 3


def test_five_times_the_errors_go_back_after_ten_of_them():
    """1 % to 5 % at a share of 5 %: seven in the mean, by simulation."""
    needed = next(
        bad
        for bad in range(1, 200)
        if ask(RELATIVE, Stratum(5, 95, 20 * bad, bad, 380 * bad, round(3.8 * bad))).verdict is Verdict.FAIL
    )
    assert 4 <= needed <= 15


def test_without_stable_the_limit_alone_decides():
    assert ask(ABSOLUTE, Stratum(100, 0, 1_000, 40)).verdict is Verdict.FAIL
    assert ask(ABSOLUTE, Stratum(100, 0, 1_000, 9)).verdict is Verdict.INCONCLUSIVE
    assert ask(ABSOLUTE, Stratum(100, 0, 2_000, 1)).verdict is Verdict.PASS


def before(requests, errors):
    return Window("old", 0.0, 60.0, requests, errors, {str(bucket_of(0.01)): requests})


def test_without_stable_it_may_be_as_bad_as_stable_surely_was():
    alone = Stratum(100, 0, 1_000, 100)
    assert ask(ABSOLUTE, alone, base=before(10_000, 5)).verdict is Verdict.FAIL
    assert ask(ABSOLUTE, alone, base=before(10_000, 1_200)).verdict is not Verdict.FAIL


# ---------------------------------------------------------------- a relative limit


def test_a_relative_limit_is_held_against_stable_alone():
    assert ask(RELATIVE, both(50, 20_000, 0.1, 0.02)).verdict is Verdict.FAIL
    assert ask(RELATIVE, both(50, 20_000, 0.1, 0.1)).verdict is Verdict.PASS
    assert ask(RELATIVE, both(50, 20_000, 0.14, 0.1)).verdict is not Verdict.FAIL


def test_a_relative_limit_without_stable_is_held_against_what_stable_did_before():
    alone = Stratum(100, 0, 2_000, 200)
    assert ask(RELATIVE, alone, base=before(10_000, 100)).verdict is Verdict.FAIL
    assert ask(RELATIVE, alone, base=before(10_000, 1_000)).verdict is not Verdict.FAIL
    assert ask(RELATIVE, alone).verdict is Verdict.INCONCLUSIVE


def test_a_service_without_errors_passes_a_relative_limit():
    """The ratio of nothing to nothing says nothing; that there is next to nothing does."""
    assert ask(RELATIVE, both(50, 2_000, 0.0, 0.0)).verdict is Verdict.PASS


def test_growing_shares_and_moving_rates_are_not_blamed_on_the_new_revision():
    """Pooled over the steps it would look many times as bad: its share was large when all failed often."""
    walked = (both(5, 100_000, 0.001, 0.001), both(50, 100_000, 0.02, 0.02))
    assert ask(RELATIVE, *walked).verdict is Verdict.PASS


# ---------------------------------------------------------------- samples, several gates


def test_too_small_a_sample_of_this_step_passes_nothing():
    good = both(50, 4_000, 0.0, 0.0)
    assert ask(ABSOLUTE, good, here=49).verdict is Verdict.INCONCLUSIVE
    assert ask(ABSOLUTE, good, here=50).verdict is Verdict.PASS


def test_too_small_a_sample_fails_all_the_same():
    assert ask(ABSOLUTE, Stratum(5, 95, 10, 10, 200, 0), here=10).verdict is Verdict.FAIL


def test_nothing_counted_says_nothing():
    result = ask(ABSOLUTE)
    assert (result.verdict, result.value, result.sample, result.low) == (Verdict.INCONCLUSIVE, None, 0, None)
    assert result.reason == "nothing was answered yet"


def test_the_evidence_of_several_gates_is_their_mean():
    """Twenty-five against one gate of two is not twenty against the rollout."""
    strata = next(
        both(5, 400 * size, 0.03, 0.01)
        for size in range(1, 200)
        if 20 <= ask(RELATIVE, both(5, 400 * size, 0.03, 0.01)).against < 38
    )
    quiet = Gate.parse("p99_latency <= 80ms")
    counted = Evidence(here=100, strata={str(RELATIVE): (strata,), str(quiet): ()})
    alone, pair = (judge(gates, counted, ANALYSIS, min_sample=1) for gates in ([RELATIVE], [RELATIVE, quiet]))
    assert [each.verdict for each in alone] == [Verdict.FAIL]
    assert [each.verdict for each in pair] == [Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE]


def test_no_gates_say_nothing():
    assert judge([], Evidence(), ANALYSIS, min_sample=1) == ()


def test_a_stricter_analysis_needs_more():
    strata = both(50, 4_000, 0.05, 0.03)
    loose, strict = (ask(RELATIVE, strata, analysis=Analysis(alpha=alpha)) for alpha in (0.5, 1e-9))
    assert loose.against == strict.against
    assert strict.verdict is not Verdict.FAIL


def test_the_figures_are_those_of_the_formula():
    strata = (both(5, 10_000, 0.01, 0.01), both(25, 10_000, 0.02, 0.01))
    result = ask(RELATIVE, *strata)
    assert result.against == pytest.approx(math.exp(eprocess.log_fail_ratio(strata, 1.5)))
    favours = [eprocess.log_pass_ratio(strata, 2.0), eprocess.log_pass_rate(strata, 0.01)]
    assert result.favour == pytest.approx(math.exp(eprocess.log_mean(favours)))
    assert (result.bad, result.sample, result.stable_sample) == (55, 3_000, 17_000)
    assert result.low < result.value < result.high


def test_overwhelming_evidence_is_still_a_number():
    assert math.isfinite(ask(ABSOLUTE, both(50, 2_000_000, 0.0, 0.0)).favour)


# ---------------------------------------------------------------- the split


def test_a_split_that_is_honoured_is_not_doubted():
    given = [Stratum(share, 100 - share, new_seen=share * 40, stable_seen=(100 - share) * 40) for share in (5, 50)]
    assert ratio_broken(Evidence(assigned=tuple(given))) is None


def test_a_split_that_is_not_honoured_is_told():
    told = ratio_broken(Evidence(assigned=(Stratum(5, 95, new_seen=0, stable_seen=400),)))
    assert told == "the new revision was given 0.00 % of 400 requests where its share is 5.00 %"


def test_a_table_with_one_revision_splits_nothing():
    assert ratio_broken(Evidence(assigned=(Stratum(100, 0, new_seen=10, stable_seen=500),))) is None


@pytest.mark.parametrize(("slow", "verdict"), [(90, Verdict.INCONCLUSIVE), (400, Verdict.FAIL)])
def test_a_quantile_of_few_answers_condemns_nobody_for_its_own_error(slow, verdict):
    """Five of stable's hundred were slower; that 9 % are, when it is not there any more, is within the error of that figure."""
    base = Window("old", 0, 1, 100, 0, {str(bucket_of(0.05)): 95, str(bucket_of(0.11)): 5})
    assert ask(Gate.parse("p95_latency <= 1x"), Stratum(100, 0, 1_000, slow), base=base).verdict is verdict
