"""Leases: one driver at a time, and one that was silent for too long writes nothing any more."""

from __future__ import annotations

import os
import socket
import sqlite3

import pytest

from modeldeploy.engine import owners
from modeldeploy.engine.journal import LEASE_S, Journal
from modeldeploy.engine.owners import forget, new_owner
from modeldeploy.engine.record import Kind, Record
from modeldeploy.errors import ConfigurationError, ConflictError, FencedError, UnavailableError
from modeldeploy.values.events import Event, Name

HERE = socket.gethostname()


class Clock:
    at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path, clock):
    made = Journal(path, clock=clock)
    yield made
    made.close()


@pytest.fixture
def dead():
    """The id of a process that has ended."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


def record(name="rollout-1"):
    return Record(name, Kind.ROLLOUT, "memory", "iris", {"step": 0})


def test_a_living_driver_keeps_others_out_until_it_is_silent(journal, clock):
    journal.create(record())
    journal.acquire("rollout-1", new_owner())
    with pytest.raises(ConflictError, match=f"process {os.getpid()} on {HERE}"):
        journal.acquire("rollout-1", new_owner())
    assert journal.driven("rollout-1")
    clock.at += LEASE_S
    assert not journal.driven("rollout-1")
    journal.acquire("rollout-1", new_owner())


def test_a_driver_on_another_machine_keeps_its_lease_to_the_end(journal, clock, dead):
    journal.create(record())
    journal.acquire("rollout-1", f"elsewhere:{dead}:a")
    assert journal.driven("rollout-1")
    clock.at += LEASE_S - 1
    with pytest.raises(ConflictError):
        journal.acquire("rollout-1", new_owner())
    clock.at += 1
    journal.acquire("rollout-1", new_owner())


def test_a_dead_process_loses_its_lease_at_once(journal, dead):
    journal.create(record())
    journal.acquire("rollout-1", f"{HERE}:{dead}:a")
    assert not journal.driven("rollout-1")
    journal.acquire("rollout-1", new_owner())


def test_a_process_in_another_container_is_not_taken_for_dead(journal, dead, clock):
    """The two share a name and the journal, and not the ids of processes."""
    journal.create(record())
    journal.acquire("rollout-1", f"{HERE}:{dead}:1.a")
    assert journal.driver("rollout-1") == f"process {dead} on {HERE}"
    clock.at += LEASE_S
    assert not journal.driven("rollout-1")


def test_where_process_ids_have_but_one_space_the_host_says_it_all(journal, dead, monkeypatch):
    def missing(_path):
        raise FileNotFoundError

    monkeypatch.setattr(owners.Path, "stat", missing)
    _host, _pid, token = new_owner().rsplit(":", 2)
    assert token.startswith(".")
    journal.create(record())
    journal.acquire("rollout-1", f"{HERE}:{dead}:.a")
    assert not journal.driven("rollout-1")


def test_a_process_of_another_user_counts_as_living(journal, monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    journal.create(record())
    journal.acquire("rollout-1", f"{HERE}:{os.getppid()}:a")
    monkeypatch.setattr(os, "kill", refuse)
    assert journal.driven("rollout-1")


@pytest.mark.row(19)
def test_a_frozen_driver_is_fenced_when_it_wakes(journal, clock):
    journal.create(record())
    frozen = journal.acquire("rollout-1", new_owner())
    clock.at += LEASE_S + 1
    taken = journal.acquire("rollout-1", new_owner())
    with pytest.raises(FencedError):
        journal.save(frozen)
    with pytest.raises(FencedError):
        journal.renew(frozen)
    journal.release(frozen)
    assert journal.driven("rollout-1")
    journal.save(taken)


def test_renewing_and_saving_prolong_the_lease(journal, clock):
    journal.create(record())
    mine = journal.acquire("rollout-1", new_owner())
    clock.at += LEASE_S - 1
    journal.renew(mine)
    clock.at += LEASE_S - 1
    assert journal.driven("rollout-1")
    mine = journal.save(mine)
    clock.at += LEASE_S - 1
    assert journal.driven("rollout-1")
    journal.save(mine, keep=False)
    assert not journal.driven("rollout-1")


def test_a_released_operation_can_be_taken_at_once(journal):
    journal.create(record())
    mine = journal.acquire("rollout-1", new_owner())
    journal.release(mine, events=[Event(Name.OPERATION_PROGRESS, 1.0, "rollout-1")])
    journal.acquire("rollout-1", new_owner())
    assert [event.name for event in journal.events("rollout-1")] == [Name.OPERATION_PROGRESS]


def test_a_driver_that_was_fenced_off_writes_no_events(journal, clock):
    journal.create(record())
    frozen = journal.acquire("rollout-1", new_owner())
    clock.at += LEASE_S
    journal.acquire("rollout-1", new_owner())
    journal.release(frozen, events=[Event(Name.OPERATION_FAILED, 1.0, "rollout-1")])
    assert journal.events("rollout-1") == ()


def test_a_driver_that_was_fenced_off_is_told_before_it_acts(journal, clock):
    journal.create(record())
    frozen = journal.acquire("rollout-1", new_owner())
    journal.check(frozen)
    clock.at += LEASE_S
    journal.check(frozen)  # nobody has taken it yet
    journal.acquire("rollout-1", new_owner())
    with pytest.raises(FencedError, match="'rollout-1' was taken over"):
        journal.check(frozen)


def test_a_driver_of_this_process_that_has_ended_keeps_nobody_out(journal):
    """It could not give its operation back, as on a full disk, and the process lives on."""
    journal.create(record())
    owner = new_owner()
    journal.acquire("rollout-1", owner)
    assert journal.driver("rollout-1") == f"process {os.getpid()} on {HERE}"
    forget(owner)
    assert journal.driver("rollout-1") == ""
    journal.acquire("rollout-1", new_owner())
    assert journal.driven("rollout-1")


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf")])
def test_a_lease_that_is_no_time_is_refused(lease):
    with pytest.raises(ConfigurationError, match="lease is"):
        Journal(lease=lease)


def test_the_length_of_a_lease_is_chosen_by_its_driver(path, clock):
    """Whoever finds the operation goes by what stands in the journal."""
    short, usual = Journal(path, lease=2, clock=clock), Journal(path, clock=clock)
    short.create(record(), owner=new_owner())
    clock.at += 1.5
    assert usual.driven("rollout-1")
    clock.at += 1
    assert not usual.driven("rollout-1")
    short.close()
    usual.close()


def test_a_write_that_another_process_blocks_is_told_as_such(journal, path, monkeypatch):
    journal._db._connection.execute("PRAGMA busy_timeout=50")
    journal.create(record())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"):
        journal.acquire("rollout-1", new_owner())
    other.close()
    journal.acquire("rollout-1", new_owner())


def test_other_trouble_with_the_file_is_told_as_sqlite_tells_it(journal):
    journal.create(record())
    journal._db._connection.execute("PRAGMA query_only=1")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        journal.acquire("rollout-1", new_owner())


RACER = """
import sys, os, pathlib
from modeldeploy.engine.journal import Journal, new_owner
from modeldeploy.errors import ConflictError
journal = Journal(pathlib.Path(sys.argv[1]))
print("ready", flush=True); sys.stdin.readline()
try:
    journal.acquire("rollout-1", new_owner())
    print("mine", flush=True)
except ConflictError as error:
    print("theirs", flush=True)
sys.stdin.readline()
"""


def start_all(processes):
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def test_of_two_processes_one_becomes_the_driver(path, python):
    journal = Journal(path)
    journal.create(record())
    for _round in range(3):
        processes = [python(RACER, path) for _ in range(2)]
        start_all(processes)
        assert sorted(process.stdout.readline() for process in processes) == ["mine\n", "theirs\n"]
        assert journal.driven("rollout-1")
        for process in processes:
            process.kill()
            process.wait()
        assert not journal.driven("rollout-1")
    journal.close()
