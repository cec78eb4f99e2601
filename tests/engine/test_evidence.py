"""What a rollout counts: one stratum for each pair of shares, bad events told beforehand, nothing lost on the way to the journal."""

from __future__ import annotations

import pytest

from modeldeploy.engine.evidence import Evidence, Interval, count, events_of
from modeldeploy.stats.eprocess import Stratum
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.gate import Gate
from modeldeploy.values.metrics import Window, bucket_of

NOBODY = Window("", 0.0, 0.0)


def window(requests=0, errors=0, latency=0.01, **options):
    buckets = {str(bucket_of(latency)): requests} if requests else {}
    return Window("r", 0.0, 1.0, requests, errors, buckets, **options)


def interval(shares, new, stable, base=NOBODY):
    return Interval(shares, new, stable, base)


def event(text):
    (only,) = events_of(Gate.parse(text))
    return only


ERRORS = event("error_rate <= 1%")


def test_each_pair_of_shares_has_a_stratum_of_its_own():
    evidence = Evidence()
    for share in (5, 25, 50):
        for _ in range(2):
            seen = interval((share, 100 - share), window(10, 1), window(190, 3))
            evidence = count(evidence, seen, (ERRORS,))
    assert evidence.strata[ERRORS.name] == tuple(Stratum(share, 100 - share, 20, 2, 380, 6) for share in (5, 25, 50))


def test_what_was_assigned_is_counted_beside_what_was_answered():
    seen = interval((5, 95), window(10, assigned=12), window(190, assigned=200))
    assert count(Evidence(), seen, (ERRORS,)).assigned == (Stratum(5, 95, new_seen=12, stable_seen=200),)


def test_where_nobody_counts_assignments_the_answers_stand_for_them():
    seen = interval((5, 95), window(10), window(190))
    assert count(Evidence(), seen, (ERRORS,)).assigned == (Stratum(5, 95, new_seen=10, stable_seen=190),)


def test_an_answer_that_comes_an_interval_after_its_request_is_given_once():
    evidence = Evidence()
    given, answered = window(assigned=1), window(1)
    for new in (given, answered):
        evidence = count(evidence, Interval((5, 95), new, window(19, assigned=19), NOBODY, told=True), ())
    assert evidence.assigned == (Stratum(5, 95, new_seen=1, stable_seen=38),)


def test_the_answers_of_this_step_are_counted_for_the_least_sample():
    seen = interval((20, 100), window(10, compared=8), window(50))
    assert count(Evidence(here=5), seen, ()).here == 15


def test_a_quantile_is_the_share_of_answers_that_take_longer():
    (slow,) = events_of(Gate.parse("p95_latency <= 80ms"))
    assert (slow.limit, slow.seconds, slow.quantile) == (0.05, 0.08, None)
    seen = interval((50, 50), window(10, latency=0.09), window(10, latency=0.07))
    assert count(Evidence(), seen, (slow,)).strata[slow.name] == (Stratum(50, 50, 10, 10, 10, 0),)


def test_a_relative_quantile_is_known_from_stable_before_the_interval():
    slow = event("p95_latency <= 1.5x")
    base = window(200, latency=0.1)
    seen = interval((50, 50), window(10, latency=0.14), window(10, latency=0.01), base)
    assert count(Evidence(), seen, (slow,)).strata[slow.name] == (Stratum(50, 50, 10, 0, 10, 0),)
    seen = interval((50, 50), window(10, latency=0.17), window(10, latency=0.2), base)
    assert count(Evidence(), seen, (slow,)).strata[slow.name] == (Stratum(50, 50, 10, 10, 10, 10),)


def test_thresholds_follow_the_load_of_stable():
    slow = event("p95_latency <= 1.5x")
    evidence = Evidence()
    for load in (1, 2, 4):
        both, before = window(10, latency=0.012 * load), window(200, latency=0.01 * load)
        evidence = count(evidence, interval((50, 50), both, both, before), (slow,))
    assert evidence.strata[slow.name] == (Stratum(50, 50, 30, 0, 30, 0),)


@pytest.mark.parametrize(("quantile", "known"), [("p50", 10), ("p90", 50), ("p95", 100), ("p99", 500)])
def test_a_quantile_of_too_few_answers_counts_nothing_yet(quantile, known):
    slow = event(f"{quantile}_latency <= 1.5x")
    seen = interval((50, 50), window(10), window(10), window(known - 1))
    assert count(Evidence(), seen, (slow,)).strata == {}
    seen = interval((50, 50), window(10), window(10), window(known))
    assert count(Evidence(), seen, (slow,)).strata[slow.name][0].new_seen == 10


def test_a_gate_on_latency_counts_three_quantiles_of_stable():
    names = [each.name for each in events_of(Gate.parse("latency <= 1.2x"))]
    assert names == ["latency <= 1.2x at p50", "latency <= 1.2x at p90", "latency <= 1.2x at p99"]


def test_a_disagreement_is_counted_of_what_was_compared_alone():
    differs = event("disagreement <= 5%")
    seen = interval((20, 100), window(30, compared=20, disagreed=3), window(100, 9))
    assert count(Evidence(), seen, (differs,)).strata[differs.name] == (Stratum(20, 0, 20, 3, 0, 0),)


def test_nothing_happened_when_nobody_asked():
    assert interval((5, 95), window(), window()).empty
    for busy in (window(1), window(assigned=1), window(compared=1)):
        assert not interval((5, 95), busy, window()).empty
        assert not interval((5, 95), window(), busy).empty


def test_what_was_counted_survives_the_journal():
    gates = ("error_rate <= 1%", "latency <= 1x")
    events = tuple(each for gate in gates for each in events_of(Gate.parse(gate)))
    evidence = count(Evidence(7.5, told=3.0), interval((5, 95), window(9, 1), window(99), window(900)), events)
    assert from_json(Evidence, to_json(evidence)) == evidence
