"""Rows 1, 2, 3 and 7: workers that are killed, crash, hang, or never come."""

from __future__ import annotations

import os
import random
import signal

import pytest

from modeldeploy.errors import ConflictError
from modeldeploy.values.serving import EndpointSpec
from modeldeploy.values.ticket import Phase

CRASH, HOARD = -11.0, -12.0
TROUBLE = {"sleepy": "SLEEP_WHILE_LOADING", "unloadable": "REFUSE_TO_LOAD", "dying": "DIE_WHILE_LOADING"}
SAID = {
    "sleepy": "was not loaded after 1 s; the option start_timeout",
    "unloadable": "RuntimeError: the weights are of another kind; its traceback is in",
    "dying": "exit code 7 while it loaded the model, after it wrote 'libgpu: no device found'",
}


@pytest.mark.row(1)
@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_ten_kills_at_random_under_load_fail_no_request_and_each_worker_is_back_within_two_seconds(
    ground, under_load, seconds_until, measured, workers
):
    ground.deploy(workers=workers)
    moments, respawns = random.Random(workers), []
    with under_load(1.0) as load:
        for kill in range(1, 11):
            answered = len(load.statuses) + moments.randrange(20, 80)
            ground.wait_until(lambda answered=answered: len(load.statuses) > answered)
            victim = moments.choice(ground.wait_until(lambda: ground.serving))
            os.kill(victim, signal.SIGKILL)
            respawns.append(seconds_until(lambda victim=victim: ground.serving and victim not in ground.workers))
            ground.wait_for_deaths(kill)
    assert load.failed == []
    assert max(respawns) < 2
    measured("slowest respawn, s", max(respawns))


@pytest.mark.row(2)
def test_an_input_that_crashes_its_worker_is_a_500_after_two_tries_and_nobody_else_is_harmed(ground, under_load):
    ground.deploy(workers=2)
    with under_load(1.0) as load:
        assert ground.ask(CRASH).status == 500
        ground.wait_for_deaths(2)
        assert ground.metric("breaker_open") == 0
        assert ground.ask(CRASH, 2.0).status == 500
        ground.wait_for_deaths(4)
        seen = len(load.statuses)
        ground.wait_until(lambda: len(load.statuses) > seen + 50)
    assert load.failed == []
    # Three within a minute: that is said wherever somebody looks.
    assert ground.metric("breaker_open") == 1
    state = ground.wait_until(lambda: ground.local.backend.observe("iris").revision(ground.revision.id))
    assert state.ready
    assert "3 workers died within a minute" in state.note
    assert "SIGSEGV" in ground.log()


@pytest.mark.row(2)
def test_a_body_that_goes_on_killing_workers_is_refused_before_it_kills_more(ground):
    ground.deploy()
    for deaths in (2, 4, 4, 4):
        ground.wait_until(lambda: ground.ask(1.0).status == 200)
        assert ground.ask(CRASH).status == 500
        ground.wait_for_deaths(deaths)
    assert ground.ask(1.0).status == 200


@pytest.mark.row(2)
def test_an_input_that_takes_more_memory_than_there_is_is_a_500_and_nobody_else_is_harmed(ground, under_load):
    ground.deploy()
    with under_load(1.0, connections=4) as load:
        assert ground.ask(HOARD).status == 500
        seen = len(load.statuses)
        ground.wait_until(lambda: len(load.statuses) > seen + 20)
    assert load.failed == []
    assert "MemoryError" in ground.log()


@pytest.mark.row(3)
def test_a_worker_that_hangs_costs_its_own_requests_until_their_deadline_and_is_replaced(ground):
    """Callers with a deadline of their own are not lent to a worker, so each worker is given requests."""
    deadline = 0.95
    ground.deploy(workers=2, seconds=0.002, deadline="1.0")
    stopped, other = ground.wait_until(lambda: ground.serving)
    load = ground.paced(100, 6, headers={"modeldeploy-timeout": str(deadline)})
    ground.wait_until(lambda: ground.metric("inflight") >= 1)
    os.kill(stopped, signal.SIGSTOP)
    ground.wait_until(lambda: stopped not in ground.workers, timeout=20)
    sent = load.sent()
    assert sent.statuses == {200, 504}
    assert sent.count(504) <= 20, "no more than one frame was in its hands"
    late = [latency for latency, status, _retry in sent.results if status == 504]
    assert all(deadline <= latency < deadline + 0.5 for latency in late), late
    assert other in ground.wait_until(lambda: ground.serving), "the other one served all the time"
    assert ground.metric("worker_restarts_total") == 1


@pytest.mark.row(3)
def test_a_worker_that_hangs_with_lent_clients_keeps_nobody_longer_than_the_deadline(ground):
    deadline = 1.0
    ground.deploy(workers=2, seconds=0.006, deadline=str(deadline))
    stopped, other = ground.wait_until(lambda: ground.serving)
    load = ground.paced(100, 6)
    ground.wait_until(lambda: ground.metric("inflight") >= 1)
    os.kill(stopped, signal.SIGSTOP)
    ground.wait_until(lambda: stopped not in ground.workers, timeout=20)
    sent = load.sent()
    # What it had in hand is 504; what a client that it was lent sent and it did not read is answered by the other one.
    assert {200} <= sent.statuses <= {200, 504}
    assert sent.count(504) <= 20, "no more than what was in its hands"
    assert max(sent.results)[0] < deadline + 0.5, sorted(sent.results)[-30:]
    assert all(latency >= deadline for latency, status, _retry in sent.results if status == 504)
    assert other in ground.wait_until(lambda: ground.serving), "the other one served all the time"
    assert ground.metric("worker_restarts_total") == 1


@pytest.mark.row(7)
@pytest.mark.parametrize("kind", ["sleepy", "unloadable", pytest.param("dying", marks=pytest.mark.slow)])
def test_a_revision_that_never_becomes_ready_fails_and_stable_is_untouched(
    ground, under_load, request, monkeypatch, kind
):
    # Workers see what the supervisor was started with.
    monkeypatch.setenv(TROUBLE[kind], "1")
    stable = ground.deploy()
    monkeypatch.delenv(TROUBLE[kind])
    patience = {"start_timeout": "1"} if kind == "sleepy" else {}
    broken = ground.local.revision(2, model=request.getfixturevalue(kind), **patience)
    before = ground.local.backend.observe("iris")
    with under_load(1.0) as load:
        ticket = ground.local.carry(ground.local.backend.put_revision(EndpointSpec("iris"), broken), timeout=60)
        seen = len(load.statuses)
        ground.wait_until(lambda: len(load.statuses) > seen + 20)
    assert ticket.phase is Phase.FAILED
    assert SAID[kind] in ticket.note
    assert load.failed == []
    assert {revision for _status, revision in load.statuses} == {stable.id}
    after = ground.local.backend.observe("iris")
    assert (after.traffic, after.revision(broken.id).ready) == (before.traffic, False)
    with pytest.raises(ConflictError, match="never ready"):
        ground.local.shift({stable.id: 95, broken.id: 5})
