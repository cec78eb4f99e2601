"""The heartbeat: a driver that waits for a slow call keeps its lease, and one that lost it is told before it acts again."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.effects import Call, Emit, Save, Sleep
from modeldeploy.engine.heartbeat import Heartbeat
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.owners import new_owner
from modeldeploy.engine.record import Kind, Record
from modeldeploy.errors import FencedError, QuotaError, UnavailableError
from modeldeploy.values.events import Name
from modeldeploy.values.ticket import Phase

LEASE_S = 0.3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path):
    made = Journal(path, lease=LEASE_S)
    yield made
    made.close()


@pytest.fixture
def make_world(journal):
    """Give ``make_world(alive=True)``: a driver of one operation, with or without a heartbeat; finished after the test."""
    made = []

    def make(*, alive=True):
        owner = new_owner()
        world = World(
            journal.create(Record("batch-1", Kind.BATCH, "memory", "job", {}), owner=owner), journal, owner=owner
        )
        if alive:
            world.keep_alive()
        made.append(world)
        return world

    yield make
    for world in made:
        world.finish()


def test_a_call_longer_than_the_lease_keeps_the_operation(journal, make_world, path, wait_until):
    world, other, seen = make_world(), Journal(path, lease=LEASE_S), []

    def slow():
        began = world.clock.now()
        wait_until(lambda: world.clock.now() - began > 2.5 * LEASE_S)
        seen.append(other.driven("batch-1"))

    def flow():
        yield Call(slow, "slow")
        yield Save({"at": 1})

    run(flow(), world)
    assert seen == [True]
    assert journal.read("batch-1").cursor == {"at": 1}
    other.close()


def test_without_a_heartbeat_it_would_be_lost(make_world, wait_until):
    """The test above can fail."""
    world = make_world(alive=False)
    wait_until(lambda: not world.journal.driven("batch-1"))


def test_a_heartbeat_does_not_take_the_write_of_its_own_driver_for_somebody_elses(journal, make_world, monkeypatch):
    """It beats when the write is durable and the driver does not know it yet."""
    world, real, beats, fenced = make_world(alive=False), journal.save, [], []

    def beat():
        try:
            world.renew()
        except FencedError as error:
            fenced.append(error)

    def save(*arguments, **options):
        new = real(*arguments, **options)
        beats.append(threading.Thread(target=beat))
        beats[-1].start()
        beats[-1].join(0.05)
        return new

    monkeypatch.setattr(journal, "save", save)
    run(iter_of(Save({"at": 1})), world)
    beats[0].join()
    assert fenced == []
    assert journal.read("batch-1").cursor == {"at": 1}


def iter_of(*effects):
    yield from effects


@pytest.mark.parametrize(
    "trouble", [QuotaError("full"), UnavailableError("locked"), sqlite3.OperationalError("disk I/O")]
)
def test_a_heartbeat_outlives_a_journal_in_trouble(trouble, wait_until):
    beats = []

    def beat():
        beats.append(1)
        raise trouble

    heart = Heartbeat(beat, 0.001).start()
    wait_until(lambda: len(beats) > 2)
    heart.stop()
    count = len(beats)
    assert not heart._thread.is_alive()
    assert len(beats) == count


def test_a_heartbeat_ends_when_somebody_else_drives(journal, make_world, path, wait_until):
    world = make_world()
    other = Journal(path)
    other.create(Record("batch-2", Kind.BATCH, "memory", "job", {}), supersede="batch-1")
    wait_until(lambda: not world._heartbeat._thread.is_alive())
    other.close()


@pytest.mark.parametrize(
    "effect", [Call(lambda: pytest.fail("acted"), "act"), Sleep(30.0), Save({})], ids=["call", "sleep", "save"]
)
def test_a_driver_that_was_fenced_off_does_nothing_more(journal, make_world, path, effect):
    """Neither a call nor a sleep is begun, and what it emitted is not written."""
    world = make_world(alive=False)
    other = Journal(path)

    def flow():
        yield Emit(Name.OPERATION_PROGRESS)
        other.create(Record("batch-2", Kind.BATCH, "memory", "job", {}), supersede="batch-1")
        yield effect

    with pytest.raises(FencedError):
        run(flow(), world)
    world.finish()
    assert journal.events("batch-1") == ()
    assert journal.read("batch-1").phase is Phase.CANCELLED
    other.close()


def test_a_driver_that_slept_past_its_lease_and_was_not_missed_goes_on(journal, make_world, wait_until):
    world = make_world(alive=False)
    wait_until(lambda: not journal.driven("batch-1"))
    world.hold()
    assert journal.driven("batch-1")


def refuse_release(journal, monkeypatch, when):
    """Let giving back fail as on a full disk, for the events that ``when`` tells."""
    real = journal.release

    def release(record, events=()):
        if when(list(events)):
            message = "full"
            raise QuotaError(message)
        real(record)

    monkeypatch.setattr(journal, "release", release)


def test_after_a_full_disk_the_same_process_takes_the_operation_up_again(journal, make_world, monkeypatch):
    """The process lives on and its lease still runs, but nobody drives."""
    world = make_world()
    with monkeypatch.context() as full:
        refuse_release(journal, full, lambda _events: True)
        with pytest.raises(QuotaError):
            world.finish()
    assert journal._db.read("SELECT owner IS NULL, lease_until > 0 FROM operation") == [(0, 1)]
    assert not journal.driven("batch-1")
    journal.acquire("batch-1", new_owner())


def test_giving_back_goes_before_the_events_where_there_is_no_room_for_both(journal, make_world, monkeypatch):
    """So that other processes need not wait for the lease."""
    world = make_world()
    world.perform(Emit(Name.OPERATION_PROGRESS))
    refuse_release(journal, monkeypatch, bool)
    with pytest.raises(QuotaError):
        world.finish()
    assert journal._db.read("SELECT owner FROM operation") == [(None,)]


def test_after_a_write_that_found_no_room_the_operation_is_given_back(journal, make_world):
    world = make_world()
    journal._db._connection.execute("PRAGMA max_page_count=1")

    def flow():
        yield Save({"much": "x" * 100_000})

    with pytest.raises(QuotaError, match="full"):
        run(flow(), world)
    world.finish()
    assert journal._db.read("SELECT owner FROM operation") == [(None,)]
