"""Token buckets, on a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving.ratelimit import Buckets, Rate, network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_burst_is_let_through_and_then_the_rate_holds(clock):
    buckets, limit = Buckets(clock=clock), Rate(2.0, 3)
    assert [buckets.take("ana", limit) for _each in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    clock.now += 0.5
    assert [buckets.take("ana", limit) for _each in range(2)] == [0, pytest.approx(0.5)]
    clock.now += 100
    assert [buckets.take("ana", limit) for _each in range(4)] == [0, 0, 0, pytest.approx(0.5)]


def test_callers_do_not_use_up_each_other_s_tokens(clock):
    buckets, limit = Buckets(clock=clock), Rate(1.0, 1)
    assert buckets.take("ana", limit) == 0
    assert buckets.take("ana", limit) > 0
    assert buckets.take("ben", limit) == 0


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_no_stretch_of_time_lets_more_through_than_burst_and_rate(rate, burst, pauses):
    clock = Clock()
    buckets, limit = Buckets(clock=clock), Rate(rate, burst)
    taken = []
    for pause in pauses:
        clock.now += pause
        if not buckets.take("ana", limit):
            taken.append(clock.now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - taken[first]) + 1e-3


@given(rate=st.floats(0.01, 1000), burst=st.integers(1, 20), pauses=st.lists(st.floats(0, 1), max_size=60))
def test_who_waits_as_long_as_was_said_is_let_in(rate, burst, pauses):
    clock = Clock()
    buckets, limit = Buckets(clock=clock), Rate(rate, burst)
    for pause in pauses:
        clock.now += pause
        wait = buckets.take("ana", limit)
        if wait:
            clock.now += wait
            assert buckets.take("ana", limit) == 0


def test_a_refused_request_costs_no_token(clock):
    buckets, limit = Buckets(clock=clock), Rate(1.0, 1)
    buckets.take("ana", limit)
    first = buckets.take("ana", limit)
    assert [buckets.take("ana", limit) for _each in range(50)] == [first] * 50


def test_memory_is_bounded_and_nobody_known_is_forgotten(clock):
    buckets, limit = Buckets(clock=clock, most=100), Rate(0.001, 1)
    assert buckets.take("abuser", limit) == 0
    refused = sum(buckets.take(f"a{at}", limit) > 0 for at in range(10_000))
    assert len(buckets._full_at) <= 101
    # Those beyond the limit share one bucket.
    assert refused == 10_000 - 100
    assert buckets.take("abuser", limit) > 0


def test_full_buckets_make_room(clock):
    buckets, limit = Buckets(clock=clock, most=100), Rate(1.0, 1)
    for at in range(100):
        buckets.take(f"a{at}", limit)
    clock.now += 5
    assert [buckets.take(f"b{at}", limit) for at in range(50)] == [0] * 50
    assert len(buckets._full_at) == 50


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, -1)])
def test_a_wrong_limit_is_refused(rate, burst):
    with pytest.raises(ConfigurationError, match="rate limit"):
        Rate.of(rate, burst)


def test_a_burst_is_one_second_s_requests_unless_said():
    assert Rate.of(2.5, None) == Rate(2.5, 3)
    assert Rate.of(0.1, 0) == Rate(0.1, 1)
    assert Rate.of(0, 0) is Rate.of(None, None) is None


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_one_customer_s_addresses_are_one_caller(address, caller):
    assert network(address) == caller
