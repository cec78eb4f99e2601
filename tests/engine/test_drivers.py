"""Drivers: the same flow in a thread, on an event loop and in virtual time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time

import pytest

from modeldeploy.engine.drivers import RealClock, World, arun, run
from modeldeploy.engine.effects import Call, Emit, Inbox, Now, Outcomes, Save, Sleep
from modeldeploy.engine.journal import LEASE_S, Journal, new_owner
from modeldeploy.engine.record import HistoryEntry, Kind, Record, Verb
from modeldeploy.errors import FencedError, ModelDeployError, QuotaError
from modeldeploy.stats.means import Tally
from modeldeploy.testing.clock import VirtualClock
from modeldeploy.values.events import Event, Level, Name
from modeldeploy.values.ticket import Phase


@pytest.fixture
def journal():
    made = Journal()
    yield made
    made.close()


@pytest.fixture
def make_world(journal):
    def make(clock=None, sink=None, **options):
        journal.create(Record("batch-1", Kind.BATCH, "memory", "job", {}))
        return World(journal.acquire("batch-1", new_owner()), journal, clock=clock, sink=sink)

    return make


def drive(how, flow, world):
    return run(flow, world) if how == "thread" else asyncio.run(arun(flow, world))


@pytest.fixture(params=["thread", "loop"])
def how(request):
    return request.param


def everything(journal):
    began = yield Now()
    yield Sleep(0.001)
    answer = yield Call(lambda: 42, "ask")
    yield Emit(Name.OPERATION_PROGRESS, {"fraction": 0.5}, Level.DEBUG)
    journal.tell("batch-1", Verb.CANCEL, "enough")
    (command,) = yield Inbox(0)
    journal.record_outcomes("batch-1", [("a", "v1", 1.0)])
    assert (yield Outcomes()) == {"v1": Tally(1, 1.0, 1.0)}
    yield Save({"at": 1})
    yield Save({"at": 2}, Phase.SUCCEEDED, "done", HistoryEntry("promoted", "v1"))
    return began, answer, command


def test_every_effect_is_performed(how, journal, make_world):
    seen = []
    world = make_world(sink=seen.append)
    began, answer, command = drive(how, everything(journal), world)
    assert abs(began - time.time()) < 60
    assert (answer, command.verb, command.reason) == (42, Verb.CANCEL, "enough")
    record = journal.read("batch-1")
    assert (record.cursor, record.phase, record.outcome) == ({"at": 2}, Phase.SUCCEEDED, "done")
    assert [line.entry.what for line in journal.history(backend="memory", target="job")] == ["promoted"]
    (event,) = seen
    assert event.fields == {"kind": "batch", "backend": "memory", "target": "job", "fraction": 0.5}
    assert journal.events("batch-1") == (event,)


def fail():
    message = "no"
    raise OSError(message)


def test_errors_are_thrown_into_the_flow_which_may_go_on(how, make_world):
    def flow():
        try:
            yield Call(fail, "fail")
        except OSError as error:
            words = f"caught {error}"
        return (yield Call(lambda: words, "ask"))

    assert drive(how, flow(), make_world()) == "caught no"


def test_errors_that_the_flow_does_not_catch_come_out(how, make_world):
    def flow():
        yield Call(fail, "fail")

    with pytest.raises(OSError, match="no"):
        drive(how, flow(), make_world())


def test_an_interrupt_is_not_handed_to_the_flow(make_world):
    caught = []

    def interrupt():
        raise KeyboardInterrupt

    def flow():
        try:
            yield Call(interrupt, "ask")
        except Exception as error:  # noqa: BLE001 - that is the question
            caught.append(error)

    with pytest.raises(KeyboardInterrupt):
        run(flow(), make_world())
    assert caught == []


def test_events_that_were_not_written_yet_are_given_back_with_the_operation(journal, make_world):
    def flow():
        yield Emit(Name.OPERATION_PROGRESS)

    world = make_world()
    run(flow(), world)
    assert journal.events("batch-1") == ()
    world.finish()
    assert [event.name for event in journal.events("batch-1")] == [Name.OPERATION_PROGRESS]
    assert not journal.driven("batch-1")


def test_a_fenced_save_reaches_the_flow(how, journal, make_world):
    def flow():
        journal.create(Record("batch-2", Kind.BATCH, "memory", "job", {}), supersede="batch-1")
        try:
            yield Save({})
        except FencedError:
            return "fenced"

    assert drive(how, flow(), make_world()) == "fenced"


def test_a_journal_in_trouble_ends_the_drive_where_it_is(how, journal, make_world):
    """The flow must not take it for the provider's trouble and decide what cannot be written down."""
    ends = []

    def flow():
        try:
            yield Save({"at": 1})
            journal._db._connection.execute("PRAGMA max_page_count=1")
            yield Save({"much": "x" * 100_000})
        except ModelDeployError as error:
            ends.append(error)
        finally:
            ends.append("closed")

    with pytest.raises(QuotaError, match="full"):
        drive(how, flow(), make_world())
    assert ends == ["closed"]
    assert journal.read("batch-1").cursor == {"at": 1}


@pytest.mark.parametrize("effect", [Call(int, "ask"), Sleep(0.0), Inbox(0)], ids=["call", "sleep", "inbox"])
def test_a_journal_that_cannot_be_read_ends_the_drive_too(how, journal, make_world, effect):
    def flow():
        journal.close()
        try:
            yield effect
        except sqlite3.Error:
            pytest.fail("the flow went on")

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        drive(how, flow(), make_world())


def test_a_long_wait_keeps_the_lease():
    clock = VirtualClock()
    journal = Journal(clock=clock.now)
    journal.create(Record("batch-1", Kind.BATCH, "memory", "job", {}))
    world = World(journal.acquire("batch-1", new_owner()), journal, clock=clock)

    def flow():
        for _each in range(40):
            yield Sleep(10.0)
            assert journal.driven("batch-1")

    run(flow(), world)
    assert clock.slept == 400.0


def test_a_loop_that_waits_keeps_the_lease_too(monkeypatch):
    clock = VirtualClock()
    journal = Journal(clock=clock.now)
    journal.create(Record("batch-1", Kind.BATCH, "memory", "job", {}))
    world = World(journal.acquire("batch-1", new_owner()), journal, clock=clock)

    def flow():
        clock.at += LEASE_S - 1
        yield Sleep(0.0)
        clock.at += LEASE_S - 1
        return journal.driven("batch-1")

    assert asyncio.run(arun(flow(), world))


def test_a_real_sleep_ends_early_when_woken():
    clock = RealClock()
    threading.Timer(0.05, clock.wake.set).start()
    began = time.monotonic()
    clock.sleep(30)
    assert time.monotonic() - began < 10
    assert not clock.wake.is_set()


def test_a_word_before_the_sleep_is_not_lost():
    clock = RealClock()
    clock.wake.set()
    began = time.monotonic()
    clock.sleep(30)
    assert time.monotonic() - began < 10


def test_a_real_sleep_without_a_word_takes_its_time():
    clock = RealClock()
    began = time.monotonic()
    clock.sleep(0.02)
    assert time.monotonic() - began >= 0.019


def sleep_on_a_loop(clock, seconds, *, then=lambda: None):
    """Sleep on a loop, do ``then`` meanwhile in a thread, and give how long it took."""

    async def main():
        asyncio.get_running_loop().run_in_executor(None, then)
        began = time.monotonic()
        await clock.asleep(seconds)
        return time.monotonic() - began

    return asyncio.run(main())


def test_a_sleep_on_a_loop_ends_early_when_woken():
    clock = RealClock()
    assert sleep_on_a_loop(clock, 30, then=clock.wake.set) < 10
    assert not clock.wake.is_set()
    assert sleep_on_a_loop(clock, 0.02) >= 0.019


def test_a_word_before_the_sleep_on_a_loop_is_not_lost():
    clock = RealClock()
    clock.wake.set()
    assert sleep_on_a_loop(clock, 30) < 10
    assert not clock.wake.is_set()


def test_a_word_after_the_loop_was_closed_wakes_nobody_and_hurts_nobody():
    clock, rings = RealClock(), []

    async def main():
        sleeping = asyncio.ensure_future(clock.asleep(30))
        await asyncio.sleep(0)
        rings.append(clock.wake.ring)
        sleeping.cancel()

    asyncio.run(main())
    assert clock.wake.ring is None
    rings[0]()
    clock.wake.set()


def test_a_loop_is_free_while_it_waits(make_world):
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.001)

    async def main():
        ticking = asyncio.ensure_future(tick())
        await arun(iter_sleep(), make_world())
        ticking.cancel()

    def iter_sleep():
        yield Sleep(0.05)
        yield Call(lambda: time.sleep(0.05), "slow")

    asyncio.run(main())
    assert len(ticks) > 10


@pytest.mark.parametrize("broken", [False, True])
def test_a_cancelled_task_waits_for_the_effect_in_hand(journal, make_world, broken):
    """Else the operation would be given back while a thread still writes it."""
    world, inside, go_on = make_world(), threading.Event(), threading.Event()

    def slow():
        inside.set()
        go_on.wait(10)
        world.record = journal.save(world.record)
        if broken:
            fail()

    def flow():
        yield Call(slow, "slow")

    async def main():
        task = asyncio.ensure_future(arun(flow(), world))
        await asyncio.to_thread(inside.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    world.finish()
    assert not journal.driven("batch-1")


def test_virtual_time_passes_only_when_asked():
    clock = VirtualClock()
    before = clock.now()
    clock.sleep(3600)
    assert clock.now() - before == clock.slept == 3600


def test_a_sink_is_told_at_once_and_the_journal_with_the_next_write(journal, make_world):
    told: list[Event] = []
    counts = []

    def flow():
        yield Emit(Name.OPERATION_PROGRESS)
        counts.append((len(told), len(journal.events("batch-1"))))
        yield Save({})
        counts.append((len(told), len(journal.events("batch-1"))))

    run(flow(), make_world(sink=told.append))
    assert counts == [(1, 0), (1, 1)]
