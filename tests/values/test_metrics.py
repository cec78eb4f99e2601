"""Windows: quantiles against a plain computation, and sums."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.values.metrics import Window, bucket_end, bucket_of, merge

latencies = st.lists(st.floats(0, 300, allow_nan=False), max_size=200)


def window(values, **options):
    counts = Counter(str(bucket_of(value)) for value in values)
    return Window("r", 0.0, 1.0, requests=len(values), latency=dict(counts), **options)


@given(latencies.filter(bool), st.integers(1, 100))
def test_a_quantile_is_the_plain_one_rounded_up_by_nine_percent_at_most(values, percent):
    rank = -(-percent * len(values) // 100)
    plain = sorted(values)[rank - 1]
    found = window(values).quantile(percent / 100)
    assert found == bucket_end(bucket_of(plain))
    if 50e-6 < plain < bucket_end(200):
        assert plain * (1 - 1e-9) <= found <= plain * 1.0906


@given(st.floats(0, 1e6, allow_nan=False), st.floats(0, 1e6, allow_nan=False))
def test_a_longer_latency_is_never_in_an_earlier_bucket(one, two):
    low, high = sorted((one, two))
    assert bucket_of(low) <= bucket_of(high)


@pytest.mark.parametrize("bucket", range(201))
def test_a_bucket_holds_its_own_end(bucket):
    assert bucket_of(bucket_end(bucket)) == bucket


def test_a_window_without_requests_has_neither_rate_nor_quantile():
    assert window([]).error_rate is None
    assert window([]).quantile(0.5) is None


@pytest.mark.parametrize("total", [60, 100, 180, 1_000, 4_700])
def test_a_rank_is_exact_where_floats_are_not(total):
    """0.07 * 100 is 7.000000000000001 in floats; the 7 % quantile of a hundred answers is the seventh all the same."""
    for percent in range(1, 101):
        rank = -(-percent * total // 100)
        below = Window("r", 0.0, 1.0, total, latency={"1": rank, "2": total - rank})
        assert below.quantile(percent / 100) == bucket_end(1)


def test_the_lowest_quantile_is_the_shortest_latency():
    assert window([0.1, 0.2]).quantile(0) == bucket_end(bucket_of(0.1))


def test_the_error_rate_is_a_share_of_the_requests():
    assert window([0.1] * 4, errors=1).error_rate == 0.25


@given(st.lists(latencies, min_size=1, max_size=4))
def test_merged_windows_are_the_window_of_all(parts):
    merged = merge([window(part, errors=len(part) // 2) for part in parts])
    every = [value for part in parts for value in part]
    assert merged == window(every, errors=sum(len(part) // 2 for part in parts))


def test_a_merged_window_spans_all_of_them():
    merged = merge([Window("r", 5.0, 6.0), Window("r", 1.0, 2.0)])
    assert (merged.since, merged.until) == (1.0, 6.0)


@given(latencies, st.integers(0, 200))
def test_slower_is_what_ends_in_a_later_bucket(values, bucket):
    assert window(values).slower_than(bucket) == sum(bucket_of(value) > bucket for value in values)


def test_nothing_is_slower_than_the_last_bucket():
    assert window([1e9]).slower_than(200) == 0


def test_assignments_and_comparisons_are_merged_too():
    one = Window("r", 0.0, 1.0, assigned=1, compared=2, disagreed=3, dropped=4)
    both = merge([one, one])
    assert (both.assigned, both.compared, both.disagreed, both.dropped) == (2, 4, 6, 8)
