"""Operations seen from a second session on the same journal, as another process sees them."""

from __future__ import annotations

import asyncio
import os
import threading

import attrs
import pytest

from modeldeploy import Endpoint, Operation, RolloutPolicy
from modeldeploy.engine.heartbeat import Heartbeat
from modeldeploy.engine.journal import Journal, new_owner
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import ConflictError, OperationFailed, OperationTimeout, RolloutAborted, UnavailableError
from modeldeploy.handles.rollout import Rollout
from modeldeploy.handles.session import Drive, Session
from modeldeploy.values.codec import to_json
from modeldeploy.values.serving import EndpointSpec, Revision
from modeldeploy.values.ticket import Phase

SLOW = RolloutPolicy.canary((10,), soak=600)


@pytest.fixture
def elsewhere(session, tmp_path):
    """Another process's session: the same provider and the same file."""
    return Session(session.backend, Journal(tmp_path / "journal.sqlite"), home=tmp_path)


@pytest.fixture
def there(endpoint, elsewhere):
    """The same endpoint from elsewhere."""
    return Endpoint.get("iris", backend=elsewhere)


def test_whoever_waits_elsewhere_sees_the_end(endpoint, there, model, wait_until):
    rollout = there.rollout(model(2), SLOW, wait=False)
    here = Rollout.get(rollout.id, backend=endpoint._session)
    with pytest.raises(OperationTimeout, match="still running"):
        here.wait(0.05)
    wait_until(lambda: len(endpoint.traffic) == 2)
    there._session.journal.tell(rollout.id, Verb.PROMOTE, "")
    here.wait(10)
    assert here.status == "succeeded"


def test_waiting_on_a_loop_for_another_process_polls(endpoint, there, model, wait_until):
    rollout = there.rollout(model(2), SLOW, wait=False)
    here = Rollout.get(rollout.id, backend=endpoint._session)

    async def main():
        waiting = asyncio.ensure_future(wait_for(here))
        await asyncio.sleep(0)
        here.operation.tell(Verb.PROMOTE)
        rollout.operation._session.driving(rollout.id).wake()
        return await waiting

    assert asyncio.run(main()).status == "succeeded"


def test_a_word_wakes_an_operation_that_is_driven_on_a_loop(endpoint, session, model, wait_until):
    """Its next look would come after ten minutes."""
    policy = attrs.evolve(SLOW, interval=600.0)
    cursor = RolloutCursor(EndpointSpec("iris"), Revision.of(model(2).identity), policy)
    session.journal.create(Record("rollout-x", Kind.ROLLOUT, "memory", "iris", to_json(cursor)))
    operation = Operation(session, "rollout-x")

    def asleep():
        soaks = "rollout.step" in [event.name for event in operation.events()]
        return soaks and session._wakes["rollout-x"].ring is not None

    async def main():
        waiting = asyncio.ensure_future(wait_for(operation))
        await asyncio.to_thread(wait_until, asleep)
        await asyncio.to_thread(operation.tell, Verb.PROMOTE)
        return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(main()).status == "succeeded"
    assert session._wakes == {}


async def wait_for(each):
    return await each


def paused(endpoint, model, wait_until):
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    rollout.pause().wait(10)
    return rollout


def test_a_word_that_no_driver_heard_is_no_rest(endpoint, model, wait_until):
    """The driver let go just when the word to go on came from elsewhere."""
    rollout = paused(endpoint, model, wait_until)
    rollout.wait()
    endpoint._session.journal.tell(rollout.id, Verb.PROMOTE, "")
    rollout.wait(10)
    assert rollout.status == "succeeded"


def test_a_driver_elsewhere_that_is_about_to_let_go_is_waited_for(endpoint, model, wait_until):
    rollout = paused(endpoint, model, wait_until)
    journal = endpoint._session.journal
    taken = journal.acquire(rollout.id, new_owner())
    timer = threading.Timer(0.1, lambda: journal.release(taken))
    timer.start()
    rollout.promote(timeout=10)
    timer.join()
    assert rollout.status == "succeeded"


def test_a_paused_rollout_is_cancelled_by_name(endpoint, model, wait_until):
    rollout = paused(endpoint, model, wait_until)
    rollout.operation.cancel("no")
    wait_until(lambda: rollout.operation.done)
    assert (rollout.status, rollout.outcome) == ("cancelled", "no")


def test_a_failed_gate_is_told_with_the_traffic(endpoint, session, model, wait_until):
    policy = RolloutPolicy.canary((10,), soak=600, gates=["error_rate <= 1%"], min_sample=10, interval=0.01)
    rollout = endpoint.rollout(model(2), policy, wait=False)
    wait_until(lambda: "rollout.step" in [event.name for event in rollout.operation.events()])
    session.backend.record("iris", rollout.revision.id, requests=100, errors=50)
    with pytest.raises(RolloutAborted, match="error_rate") as caught:
        rollout.wait(10)
    assert caught.value.verdict == "fail"
    assert list(caught.value.traffic.values()) == [100]
    assert rollout.policy == policy
    assert rollout.gates[0].verdict == "fail"
    assert "error_rate" in rollout._repr_html_()
    assert rollout.endpoint == "iris"


def test_a_golden_difference_fails_and_leaves_traffic_alone(endpoint, session, model, monkeypatch):
    made = model(2)
    real = session.backend._responder
    stable = endpoint.stable.id
    # The new one answers as the old one does.
    monkeypatch.setattr(session.backend, "_responder", lambda name, _revision, payload: real(name, stable, payload))
    with pytest.raises(OperationFailed, match="does not reproduce its golden outputs"):
        endpoint.rollout(made)
    assert list(endpoint.traffic.values()) == [100]
    assert len(endpoint.revisions) == 1
    endpoint.rollout(made, golden=False)
    assert len(endpoint.revisions) == 2


def test_an_outage_is_raised_and_the_work_can_be_taken_up(endpoint, session, model, monkeypatch):
    session.retry = RetryPolicy(attempts=1)
    endpoint.rollout(model(2))
    real = session.backend.advance

    def down(ticket):
        message = "down"
        raise UnavailableError(message)

    monkeypatch.setattr(session.backend, "advance", down)
    with pytest.raises(UnavailableError):
        endpoint.rollback()
    (left,) = Operation.unfinished(backend=session)
    with pytest.raises(UnavailableError):
        asyncio.run(wait_for(left))
    monkeypatch.setattr(session.backend, "advance", real)
    assert left.wait(10).status == "succeeded"


def test_of_two_that_drive_at_once_one_follows(endpoint, elsewhere, model, wait_until):
    """The lease decides; the other one is no error."""
    session = endpoint._session
    cursor = RolloutCursor(EndpointSpec("iris"), Revision.of(model(2).identity), RolloutPolicy.all_at_once())
    session.journal.create(Record("rollout-x", Kind.ROLLOUT, "memory", "iris", to_json(cursor)))
    results = []
    threads = [
        threading.Thread(target=lambda each=each: results.append(Operation(each, "rollout-x").wait(20).status))
        for each in (session, elsewhere)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["succeeded", "succeeded"]


def test_a_driver_that_lost_the_race_follows(endpoint, session):
    operation = endpoint.operation
    operation._raise_or_follow(ConflictError("taken"))  # it has ended
    record = attrs.evolve(operation.record, id="rollout-x", phase=Phase.RUNNING)
    session.journal.create(record)
    waiting = Operation(session, "rollout-x")
    with pytest.raises(ConflictError):
        waiting._raise_or_follow(ConflictError("really"))
    session.journal.acquire("rollout-x", f"elsewhere:{os.getpid()}:x")
    waiting._raise_or_follow(ConflictError("driven by another"))


def test_a_thread_of_the_parent_is_no_driver_after_a_fork(session):
    drive = Drive(session, "x")
    assert not drive.done
    drive._pid = -1
    assert drive.done


def test_without_a_thread_for_the_heartbeat_nothing_is_driven_and_nobody_waits(endpoint, session, model, monkeypatch):
    cursor = RolloutCursor(EndpointSpec("iris"), Revision.of(model(2).identity), RolloutPolicy.all_at_once())
    session.journal.create(Record("rollout-x", Kind.ROLLOUT, "memory", "iris", to_json(cursor)))

    def refuse(_self):
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as busy:
        busy.setattr(Heartbeat, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            Operation(session, "rollout-x").wait(10)
    assert not session.journal.driven("rollout-x")
    assert Operation(session, "rollout-x").wait(10).status == "succeeded"


def test_who_asks_late_is_told_at_once(session):
    drive = Drive(session, "nothing")
    told = []
    drive.when_done(lambda: told.append("early"))
    drive.start()
    assert drive.join(10)
    drive.when_done(lambda: told.append("late"))
    assert sorted(told) == ["early", "late"]
    assert drive.error is not None
