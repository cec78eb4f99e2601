"""The journal: compare-and-swap, leases, commands, the chained history, and what processes do to each other and to it."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sqlite3
import stat
import threading

import attrs
import pytest

from modeldeploy.engine import database, owners
from modeldeploy.engine.journal import Journal, new_owner, whoami
from modeldeploy.engine.record import HistoryEntry, Kind, Record, Verb
from modeldeploy.errors import ConfigurationError, ConflictError, FencedError, NotFoundError, QuotaError
from modeldeploy.values.events import Event, Name
from modeldeploy.values.ticket import Phase

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
    return tmp_path / "home" / "journal.sqlite"


@pytest.fixture
def journal(path, clock):
    made = Journal(path, clock=clock)
    yield made
    made.close()


def record(name="rollout-1", target="iris", **options):
    return Record(name, Kind.ROLLOUT, "memory", target, {"step": 0}, **options)


def entry(revision="v1"):
    return HistoryEntry("promoted", revision, "because", {"n": 1})


def ended(journal, name, target="iris"):
    made = journal.create(record(name, target))
    return journal.save(attrs.evolve(made, phase=Phase.SUCCEEDED), history=entry(name))


# ---------------------------------------------------------------- operations


def test_what_was_created_is_read_back(journal):
    made = journal.create(record(reason="why"))
    assert journal.read("rollout-1") == made
    assert (made.seq, made.created, made.who) == (1, 1000.0, whoami())


def test_an_unknown_operation_is_not_found(journal):
    with pytest.raises(NotFoundError, match="'nothing'"):
        journal.read("nothing")
    with pytest.raises(NotFoundError, match="'nothing'"):
        journal.acquire("nothing", new_owner())
    assert not journal.driven("nothing")


def test_a_target_has_one_unfinished_operation(journal):
    journal.create(record())
    with pytest.raises(ConflictError, match=r"rollout 'rollout-1' of 'iris' is not finished"):
        journal.create(record("rollout-2"))
    journal.create(record("rollout-3", target="other"))
    assert [each.id for each in journal.unfinished()] == ["rollout-1", "rollout-3"]
    assert [each.id for each in journal.unfinished(target="other")] == ["rollout-3"]
    assert journal.unfinished(backend="local") == ()


def test_a_superseded_operation_ends_and_its_driver_is_fenced(journal):
    journal.create(record())
    driver = journal.acquire("rollout-1", new_owner())
    journal.create(record("rollback-2"), supersede="rollout-1")
    old = journal.read("rollout-1")
    assert (old.phase, old.outcome) == (Phase.CANCELLED, "superseded by rollback-2")
    with pytest.raises(FencedError):
        journal.save(driver)
    with pytest.raises(FencedError):
        journal.renew(driver)


def test_superseding_another_than_the_unfinished_one_is_a_conflict(journal):
    ended(journal, "rollout-1")
    journal.create(record("rollout-2"))
    with pytest.raises(ConflictError):
        journal.create(record("rollback-3"), supersede="rollout-1")
    assert journal.read("rollout-1").phase is Phase.SUCCEEDED
    assert journal.read("rollout-2").phase is Phase.RUNNING


def test_an_operation_that_ended_is_not_driven_again(journal):
    """Else a driver that starts late would carry on with what was superseded."""
    journal.create(record())
    journal.create(record("rollback-2"), supersede="rollout-1")
    with pytest.raises(ConflictError, match="has ended"):
        journal.acquire("rollout-1", new_owner())


def test_a_write_with_an_old_number_is_refused_and_changes_nothing(journal):
    made = journal.create(record())
    journal.save(attrs.evolve(made, cursor={"step": 1}))
    with pytest.raises(FencedError) as caught:
        journal.save(attrs.evolve(made, cursor={"step": 2}), history=entry())
    assert caught.value.context == {"operation": "rollout-1"}
    assert journal.read("rollout-1").cursor == {"step": 1}
    assert journal.history(backend="memory", target="iris") == ()


def test_the_latest_of_a_kind_is_found(journal, clock):
    assert journal.latest(backend="memory", target="iris", kind=Kind.ROLLOUT) is None
    ended(journal, "rollout-1")
    clock.at += 1
    ended(journal, "rollout-2")
    assert journal.latest(backend="memory", target="iris", kind=Kind.ROLLOUT).id == "rollout-2"


# ---------------------------------------------------------------- commands, events, history


def test_commands_are_read_in_order_after_a_number(journal):
    journal.tell("rollout-1", Verb.PAUSE, "lunch")
    journal.tell("rollout-1", Verb.RESUME, "")
    journal.tell("rollout-2", Verb.ABORT, "")
    first, second = journal.commands("rollout-1")
    assert (first.verb, first.reason, first.who, second.verb) == (Verb.PAUSE, "lunch", whoami(), Verb.RESUME)
    assert journal.commands("rollout-1", after=first.number) == (second,)


def test_events_are_kept_with_the_write(journal):
    made = journal.create(record())
    events = [Event(Name.ROLLOUT_STEP, float(at), "rollout-1", fields={"percent": at}) for at in range(3)]
    journal.save(made, events=events)
    assert list(journal.events("rollout-1")) == events


def looks(count):
    return [Event(Name.ROLLOUT_LOOK, float(at), "rollout-1", fields={"step": 0}) for at in range(count)]


def test_events_are_read_on_from_where_one_stood(journal):
    made = journal.save(journal.create(record()), events=looks(3))
    assert [event.at for event in journal.events("rollout-1", skip=2)] == [2.0]
    journal.save(made, events=looks(1))
    assert [event.at for event in journal.events("rollout-1", skip=3)] == [0.0]
    assert journal.events("rollout-1", skip=4) == ()


def steps_of(journal, act):
    """Count what SQLite's machine does; a scan of a table shows in it whatever the machine below is doing."""
    steps = []
    journal._db._connection.set_progress_handler(lambda: steps.append(1), 1)
    act()
    journal._db._connection.set_progress_handler(None, 1)
    return len(steps)


def test_saving_and_listing_do_not_slow_down_with_ten_thousand_events(journal):
    made = [journal.create(record())]

    def save():
        made[0] = journal.save(made[0], events=looks(1))

    def read():
        assert journal.events("rollout-1", skip=10_001)

    acts = [save, journal.unfinished, lambda: journal.read("rollout-1"), lambda: journal.driven("rollout-1")]
    before = [steps_of(journal, act) for act in acts]
    made[0] = journal.save(made[0], events=looks(10_000))
    after = [steps_of(journal, act) for act in acts]
    assert max(now - then for now, then in zip(after, before, strict=True)) < 50
    # Skipping is a step for each event, not its text.
    assert steps_of(journal, read) < 100_000


# ---------------------------------------------------------------- the file


@pytest.mark.skipif(os.name != "posix", reason="file modes are of Unix")
def test_only_the_user_can_read_it(journal, path):
    ended(journal, "rollout-1")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"journal.sqlite": 0o600, "journal.sqlite-wal": 0o600, "journal.sqlite-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_was_said_is_on_the_disk(journal):
    assert journal._db.read("PRAGMA journal_mode") == [("wal",)]
    assert journal._db.read("PRAGMA synchronous") == [(2,)]


def test_a_journal_of_another_version_is_refused(path):
    Journal(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(ConfigurationError, match="schema 99"):
        Journal(path)


def test_a_file_that_is_no_journal_is_refused_by_name(path):
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, whatever it is" * 100)
    with pytest.raises(ConfigurationError, match=r"journal\.sqlite"):
        Journal(path)


def test_a_file_that_somebody_holds_for_too_long_is_refused(path, monkeypatch):
    path.parent.mkdir()
    monkeypatch.setattr(database, "_PATIENCE_S", 0.05)
    with sqlite3.connect(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigurationError, match="locked"):
            Journal(path)
    other.close()


def test_a_file_that_somebody_is_just_switching_is_waited_for():
    class Busy:
        calls = 0

        def execute(self, _sql):
            self.calls += 1
            if self.calls == 1:
                message = "database is locked"
                raise sqlite3.OperationalError(message)

    busy = Busy()
    database._write_ahead(busy)
    assert busy.calls == 2


def test_a_failed_write_leaves_no_transaction_open(journal):
    journal.create(record())
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.create(attrs.evolve(record("rollout-2", target="x"), cursor={"nan": float("nan")}))
    journal.create(record("rollout-3", target="x"))


def test_a_failed_commit_leaves_no_transaction_open(journal, monkeypatch):
    class Full:
        """A disk that is full once."""

        def __init__(self, inner):
            self.inner, self.full = inner, True

        def execute(self, sql, *arguments):
            if sql == "COMMIT" and self.full:
                self.full = False
                message = "database or disk is full"
                raise sqlite3.OperationalError(message)
            return self.inner.execute(sql, *arguments)

        def executemany(self, sql, rows):
            return self.inner.executemany(sql, rows)

        def close(self):
            self.inner.close()

    monkeypatch.setattr(journal._db, "_connection", Full(journal._db._connection))
    with pytest.raises(QuotaError, match="free some space"):
        journal.create(record())
    journal.create(record())
    assert journal.read("rollout-1").seq == 1


def test_a_full_disk_is_named_and_forgotten_when_there_is_space_again(journal):
    journal._db._connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(QuotaError, match="full"):
        journal.create(attrs.evolve(record(), cursor={"much": "x" * 100_000}))
    journal._db._connection.execute("PRAGMA max_page_count=100000")
    journal.create(record())
    assert journal.read("rollout-1").seq == 1


def test_one_without_a_file_lives_in_memory():
    journal = Journal()
    ended(journal, "rollout-1")
    assert journal.verify_history(backend="memory", target="iris") == 1
    with pytest.raises(NotFoundError, match="in memory"):
        journal.read("x")
    journal.close()


def test_who_acts_has_a_name_where_users_have_none(monkeypatch):
    def unknown():
        message = "uid not found: 1234"
        raise KeyError(message)

    monkeypatch.setattr(owners.getpass, "getuser", unknown)
    assert whoami() == f"{os.getuid()}@{HERE}"
    monkeypatch.delattr(owners.os, "getuid")
    assert whoami() == f"unknown@{HERE}"


# ---------------------------------------------------------------- many threads and processes


def test_threads_of_one_process_share_it(journal):
    def write(target):
        for number in range(20):
            ended(journal, f"{target}-{number}", target=target)

    threads = [threading.Thread(target=write, args=(f"t{each}",)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [journal.verify_history(backend="memory", target=f"t{each}") for each in range(4)] == [20] * 4


WRITER = """
import sys, attrs, pathlib
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import HistoryEntry, Kind, Record
from modeldeploy.values.ticket import Phase
path, name, count = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True); sys.stdin.readline()
journal = Journal(path)
for number in range(count):
    made = journal.create(Record(f"{name}-{number}", Kind.ROLLOUT, "memory", name, {}))
    made = journal.acquire(made.id, "here:1:" + name)
    for step in range(3):
        made = journal.save(attrs.evolve(made, cursor={"step": step}))
    journal.save(attrs.evolve(made, phase=Phase.SUCCEEDED), history=HistoryEntry("promoted", made.id), keep=False)
    print(number, flush=True)
"""


def start_all(processes):
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def test_processes_make_and_write_a_new_journal_together(path, python):
    processes = [python(WRITER, path, f"p{each}", 10) for each in range(4)]
    start_all(processes)
    for process in processes:
        _out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    journal = Journal(path)
    assert [journal.verify_history(backend="memory", target=f"p{each}") for each in range(4)] == [10] * 4
    assert journal.unfinished() == ()
    journal.close()


def test_a_killed_writer_leaves_a_readable_journal(path, python):
    for number in range(3):
        name = f"p{number}"
        process = python(WRITER, path, name, 10_000)
        start_all([process])
        for _write in range(3 + number):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        journal = Journal(path)
        assert journal.verify_history(backend="memory", target=name) >= 3 + number
        assert journal._db.read("PRAGMA integrity_check") == [("ok",)]
        for left in journal.unfinished(target=name):
            journal.acquire(left.id, new_owner()) if not journal.driven(left.id) else None
        journal.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_writes_beside_its_parent(journal, path):
    """Even when the fork happened while a thread of the parent was writing."""
    journal.create(record())
    held, done = threading.Event(), threading.Event()

    def hold():
        with journal._db._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ended(journal, "rollout-child", target="child")
            code = int(journal.read("rollout-1").cursor != {"step": 0})
        finally:
            os._exit(code)
    done.set()
    thread.join()
    _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    ended(journal, "rollout-parent", target="parent")
    assert journal.read("rollout-child").phase is Phase.SUCCEEDED
    assert journal._db.read("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("in_memory", [False, True])
def test_after_a_fork_the_file_is_opened_anew(path, in_memory):
    """The same as seen from the child, in one process."""
    journal = Journal(None if in_memory else path)
    journal.create(record())
    before, journal._db._pid = journal._db._connection, -1
    assert journal.read("rollout-1").id == "rollout-1"
    assert (journal._db._connection is before) is in_memory
    assert database._inherited.pop() is before
    journal.close()
    before.close()


def test_a_journal_that_nobody_holds_any_more_closes_its_file(path):
    journal = Journal(path)
    connection = journal._db._connection
    del journal
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
