"""Faults by script: each does what it says, and success is never claimed for what did not come about."""

from __future__ import annotations

import pytest

from modeldeploy.errors import ThrottledError, UnavailableError
from modeldeploy.testing.faults import Fault, FaultyBackend
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Phase


@pytest.fixture
def two(harness_of):
    """Give a harness and an endpoint with two revisions."""
    harness = harness_of()
    return harness, harness.deploy(*harness.revisions[:2])


def carry(backend, ticket):
    while not ticket.phase.ended:
        ticket = backend.advance(ticket)
    return ticket


def test_a_refused_call_did_nothing_and_a_lost_one_did(harness_of):
    harness = harness_of()
    faulty = FaultyBackend(harness.backend, {"advance:1": Fault.REFUSE, "advance:2": Fault.LOSE})
    ticket = faulty.put_revision(harness.endpoint(), harness.revisions[0])
    for expected in (0, 2):
        with pytest.raises(UnavailableError):
            faulty.advance(ticket)
        assert harness.writes() == expected
    assert [(each.call, each.fault) for each in faulty.seen] == [("advance", Fault.REFUSE), ("advance", Fault.LOSE)]


def test_a_throttled_call_says_how_long_to_wait(two):
    harness, spec = two
    with pytest.raises(ThrottledError) as caught:
        FaultyBackend(harness.backend, {1: Fault.THROTTLE}, retry_after=3.0).observe(spec.name)
    assert caught.value.retry_after == 3.0


def test_a_stuck_advance_leaves_everything_as_it_was(two):
    harness, spec = two
    faulty = FaultyBackend(harness.backend, {"advance:1": Fault.STUCK})
    ticket, before = faulty.set_traffic(spec.name, Traffic.all_to(harness.revisions[1].id)), harness.fingerprint()
    assert faulty.advance(ticket) == ticket
    assert harness.fingerprint() == before


def test_a_stale_observation_is_the_one_before(two):
    harness, spec = two
    faulty = FaultyBackend(harness.backend, {"observe:2": Fault.STALE})
    old = faulty.observe(spec.name)
    harness.route(spec, Traffic.all_to(harness.revisions[1].id))
    assert faulty.observe(spec.name) == old
    assert faulty.observe(spec.name) != old


def test_a_table_that_the_provider_puts_back_is_told_as_a_failure(two):
    harness, spec = two
    first, second = harness.revisions[:2]
    faulty = FaultyBackend(harness.backend, {"advance:1": Fault.UNDO})
    ended = carry(faulty, faulty.set_traffic(spec.name, Traffic.all_to(second.id)))
    assert ended.phase is Phase.FAILED
    assert harness.state(spec).traffic.live == {first.id: 100}


def test_the_same_seed_gives_the_same_faults(harness_of):
    def seen(seed):
        faulty = FaultyBackend(harness_of().backend, seed=seed, rate=0.5, kinds=(Fault.STUCK,))
        for _ in range(40):
            faulty.endpoints()
        return [each.number for each in faulty.seen]

    assert seen(1) == seen(1) != seen(2)
    assert all(run[3] - run[0] > 3 for run in zip(*(seen(1)[i:] for i in range(4)), strict=False))
