"""Workers that die again and again, in time that the test turns."""

from __future__ import annotations

import pytest

from modeldeploy.serving.breaker import CRASHES, WINDOW_S, Breaker


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock=clock)


def test_three_deaths_within_a_minute_open_it_and_a_minute_closes_it(breaker, clock):
    for death in range(CRASHES):
        assert not breaker.open
        breaker.crashed(death)
        clock.now += 1
    assert breaker.open
    clock.now += WINDOW_S
    assert not breaker.open


def test_deaths_that_lie_far_apart_do_not_open_it(breaker, clock):
    for death in range(10):
        breaker.crashed(death)
        clock.now += WINDOW_S / 2
    assert not breaker.open


def test_it_is_hopeless_only_when_nothing_succeeds_between_deaths_at_work(breaker, clock):
    for _death in range(CRASHES):
        breaker.crashed(7, busy=True)
    assert breaker.hopeless(7)
    assert not breaker.hopeless(8), "somebody got an answer since"
    clock.now += WINDOW_S + 1
    assert not breaker.hopeless(7), "that was long ago"


def test_workers_that_die_idle_are_no_reason_to_give_up(breaker):
    for _death in range(CRASHES + 1):
        breaker.crashed(7)
    assert breaker.open
    assert not breaker.hopeless(7)


def test_a_body_is_refused_when_it_killed_two_workers_in_a_row_twice_within_a_minute(breaker, clock):
    breaker.convict(b"poison")
    assert not breaker.refuses(b"poison"), "the second kill may have come from outside"
    breaker.convict(b"poison")
    assert breaker.refuses(b"poison")
    assert not breaker.refuses(b"food")
    clock.now += WINDOW_S + 1
    assert not breaker.refuses(b"poison")
    assert not breaker.convicted


def test_convictions_that_lie_far_apart_do_not_add_up(breaker, clock):
    for _each in range(3):
        breaker.convict(b"poison")
        clock.now += WINDOW_S + 1
    breaker.convict(b"poison")
    assert not breaker.refuses(b"poison")


def test_it_remembers_a_bounded_number_of_bodies(breaker):
    for number in range(3000):
        breaker.convict(b"%d" % number)
    assert len(breaker.convicted) <= 1000
