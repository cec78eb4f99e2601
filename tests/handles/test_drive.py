"""Driving unattended: what is taken up, what is left alone, and that no two ever do the same, in real processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import attrs
import pytest

from modeldeploy import Endpoint, Operation, RolloutPolicy
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import UnavailableError
from modeldeploy.handles.drive import Sweep
from modeldeploy.values.codec import to_json
from modeldeploy.values.serving import EndpointSpec, Revision
from modeldeploy.values.ticket import Phase

# ---------------------------------------------------------------- one process, a provider in memory


class Sayings(list):
    def __call__(self, text, *, error=False):
        self.append(("! " if error else "") + text)


class Work:
    """One endpoint in memory, unfinished rollouts that nobody drives, and a sweep with what it said."""

    def __init__(self, endpoint, session, model):
        self.endpoint, self.session, self.model = endpoint, session, model
        self.said = Sayings()
        self.sweep = Sweep(session, self.said)

    def leave(self, name, number, endpoint="iris", backend="memory", **options):
        """Journal a rollout of 1.<number>.0 as a driver that died leaves it."""
        options = {"policy": RolloutPolicy.all_at_once(), **options}
        cursor = RolloutCursor(EndpointSpec(endpoint), Revision.of(self.model(number).identity), **options)
        return self.session.journal.create(Record(name, Kind.ROLLOUT, backend, endpoint, to_json(cursor)))

    def left(self):
        return self.session.journal.unfinished()

    def phase(self, name):
        return self.session.journal.read(name).phase


@pytest.fixture
def work(endpoint, session, model):
    return Work(endpoint, session, model)


def test_all_that_nobody_drives_is_driven_to_its_end(work):
    other = Endpoint.deploy(work.model(3), "other", backend=work.session)
    work.leave("rollout-1", 2)
    work.leave("rollout-2", 4, "other")
    work.sweep.once(work.left())
    assert work.left() == ()
    assert not work.sweep.failed
    assert work.said[0] == "rollout-1: taking up the rollout of 'iris'"
    assert "rollout-2: succeeded" in [line[:20] for line in work.said]
    assert f"rollout-2: 100 % to {other.stable.id}" in work.said


def test_one_that_fails_does_not_keep_the_others_from_their_end(work):
    failing = work.leave("rollout-1", 3, "other")
    work.session.backend.doom(failing.cursor["revision"]["id"], "no room")
    work.leave("rollout-2", 2)
    work.sweep.once(work.left())
    assert work.sweep.failed
    assert work.phase("rollout-1") is Phase.FAILED
    assert work.phase("rollout-2") is Phase.SUCCEEDED
    assert any(line.startswith("! rollout-1: failed ") and "no room" in line for line in work.said)


def test_one_whose_backend_is_unknown_is_told_and_the_others_are_driven(work):
    work.leave("rollout-1", 2, backend="nowhere")
    work.leave("rollout-2", 2)
    work.sweep.once(work.left())
    assert work.sweep.failed
    assert "'nowhere'" in work.said[0]
    assert [record.id for record in work.left()] == ["rollout-1"]


def test_a_paused_one_waits_for_its_user_and_is_told_once(work):
    made = work.leave("rollout-1", 2, paused=True)
    work.session.journal.save(attrs.evolve(made, outcome="paused: lunch"), keep=False)
    work.sweep.look(work.left())
    work.sweep.look(work.left())
    assert work.said == ["rollout-1: paused: lunch"]
    assert not work.sweep.failed
    Operation(work.session, "rollout-1").tell(Verb.RESUME)
    work.sweep.once(work.left())
    assert work.phase("rollout-1") is Phase.SUCCEEDED


def test_one_that_somebody_else_drives_is_left_to_them(work):
    work.leave("rollout-1", 2)
    taken = work.session.journal.acquire("rollout-1", f"elsewhere:{os.getpid()}:x")
    work.sweep.once(work.left())
    assert work.said == [f"rollout-1: left to process {os.getpid()} on elsewhere, which drives it"]
    assert not work.sweep.failed
    assert work.session.journal.read("rollout-1") == taken


def test_one_that_somebody_else_took_in_the_same_moment_is_left_to_them(work, monkeypatch):
    work.leave("rollout-1", 2)
    real = work.session.drive

    def late(operation):
        work.session.journal.acquire(operation, f"elsewhere:{os.getpid()}:x")
        return real(operation)

    monkeypatch.setattr(work.session, "drive", late)
    work.sweep.once(work.left())
    assert work.said[1:] == [f"rollout-1: left to process {os.getpid()} on elsewhere, which took it first"]
    assert not work.sweep.failed


def test_one_that_a_user_takes_back_meanwhile_is_no_failure(work, wait_until):
    work.leave("rollout-1", 2, policy=RolloutPolicy.canary((10,), soak=600))
    thread = threading.Thread(target=work.sweep.once, args=(work.left(),))
    thread.start()
    wait_until(lambda: len(work.endpoint.traffic) == 2)
    Operation(work.session, "rollout-1").tell(Verb.ABORT, "lunch")
    thread.join(30)
    assert work.said[-1] == "rollout-1: cancelled lunch"
    assert not work.sweep.failed


def test_a_provider_that_is_away_stops_the_drive_and_a_later_one_goes_on(work, monkeypatch):
    work.session.retry = RetryPolicy(attempts=2, first=0.001)
    work.endpoint.rollout(work.model(2))

    def away(_ticket):
        message = "away"
        raise UnavailableError(message)

    with monkeypatch.context() as down:
        down.setattr(work.session.backend, "advance", away)
        with pytest.raises(UnavailableError):
            work.endpoint.rollback()
        (left,) = work.left()
        work.sweep.once([left])
    assert work.sweep.failed
    assert f"! {left.id}: advance set-traffic again: away" in work.said
    assert work.said[-1] == f"! {left.id}: stopped where it was: UnavailableError: away"
    work.sweep.once(work.left())
    assert work.said[-1].startswith(f"{left.id}: succeeded")
    assert work.endpoint.stable.model.version == "1.1.0"


def test_after_a_full_disk_the_same_process_goes_on_at_once(work):
    """It could not give the operation back, and its lease of a minute still runs."""
    work.leave("rollout-1", 2)
    file = work.session.journal._db._connection
    file.execute("PRAGMA max_page_count=1")
    work.sweep.once(work.left())
    assert "stopped where it was: QuotaError: journal " in work.said[-1]
    file.execute("PRAGMA max_page_count=100000")
    work.sweep.once(work.left())
    assert work.phase("rollout-1") is Phase.SUCCEEDED


def test_a_watch_finds_what_is_left_later_and_outlives_a_journal_in_trouble(work):
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 2:
            message = "locked"
            raise UnavailableError(message)
        if len(looks) == 4:
            work.leave("rollout-1", 2, policy=RolloutPolicy.canary((10,), soak=0.1, interval=0.01))
        if any("succeeded" in line for line in work.said):
            raise KeyboardInterrupt
        return work.left()

    with pytest.raises(KeyboardInterrupt):
        work.sweep.watch(look, 0.02)
    assert work.said[0] == "! journal: locked"
    assert work.said[1] == "rollout-1: taking up the rollout of 'iris'"
    assert work.phase("rollout-1") is Phase.SUCCEEDED
    assert not work.sweep.failed


# ---------------------------------------------------------------- real processes on this machine

processes = pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")

DRIVER = """
import sys
from modeldeploy import Endpoint, Model, RolloutPolicy, config, registry
from modeldeploy.engine.journal import Journal
from modeldeploy.handles.session import JOURNAL, Session
settings, lease = config.load(), float(sys.argv[1])
session = Session(registry.create("local", settings), Journal(settings.home / JOURNAL, lease=lease), home=settings.home)
policy = RolloutPolicy.canary((10, 50), soak=float(sys.argv[2]), interval=0.05)
rollout = Endpoint.get("iris", backend=session).rollout(Model.get("iris", "1.2.0"), policy, wait=False)
drive = session.driving(rollout.id)
print(rollout.id, flush=True)
drive.join(None)
print(type(drive.error).__name__, flush=True)
"""

COMMAND = """
import signal, sys
from modeldeploy.cli import main
# Ignored where the tests themselves run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(["drive", *sys.argv[1:]]))
"""


@pytest.fixture
def local(modeldeploy_home, model):
    """An endpoint on this machine that serves 1.1.0, and 1.2.0 to be rolled out."""
    endpoint = Endpoint.deploy(model(1), "iris")
    model(2)
    yield endpoint
    endpoint.delete()
    endpoint._session.backend.shutdown()


@pytest.fixture
def start():
    """Give ``start(code, *arguments)``: a process of its own, ended after the test even when it is frozen."""
    started = []

    def make(code, *arguments):
        command = [sys.executable, "-u", "-c", code, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


def share(endpoint, version):
    state = endpoint.state
    return sum(
        part for name, part in state.traffic.live.items() if state.revision(name).revision.model.version == version
    )


def steps(operation):
    return [event.fields["percent"] for event in operation.events() if event.name.value == "rollout.step"]


def go(process):
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def freeze(process, path, wait_until):
    """Stop a process for as long as one likes, but not in the midst of a write, which would keep all others out."""

    def frozen():
        process.send_signal(signal.SIGSTOP)
        probe = sqlite3.connect(path, timeout=0.2, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            return False
        else:
            return True
        finally:
            probe.close()

    wait_until(frozen)


@processes
def test_a_driver_that_is_frozen_past_its_lease_is_replaced_and_does_nothing_when_it_wakes(
    local, modeldeploy_home, start, wait_until
):
    driver = start(DRIVER, 1.0, 1.0)
    operation = Operation.get(driver.stdout.readline().strip())
    watcher = start(COMMAND, "--every", "0.1")
    go(watcher)
    assert watcher.stdout.readline().startswith(f"{operation.id}: left to process {driver.pid} on ")
    wait_until(lambda: share(local, "1.2.0") == 10, timeout=30)
    freeze(driver, modeldeploy_home / "journal.sqlite", wait_until)
    version = int(local.state.version)
    assert watcher.stdout.readline() == f"{operation.id}: taking up the rollout of 'iris'\n"
    wait_until(lambda: operation.status == "succeeded", timeout=30)

    def all_there_is():
        return local.state, operation.record, operation.events(), local.history.lines

    before = all_there_is()
    driver.send_signal(signal.SIGCONT)
    assert driver.stdout.readline() == "FencedError\n"
    assert driver.wait(30) == 0
    assert all_there_is() == before
    assert steps(operation) == [10, 50, 100]
    assert int(local.state.version) == version + 2
    assert share(local, "1.2.0") == 100
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(30) == 130


@processes
def test_of_two_commands_at_once_one_takes_up_what_a_killed_driver_left(local, start, wait_until):
    driver = start(DRIVER, 60.0, 1.0)
    operation = Operation.get(driver.stdout.readline().strip())
    commands = [start(COMMAND) for _ in range(2)]
    wait_until(lambda: share(local, "1.2.0") == 10, timeout=30)
    version = int(local.state.version)
    driver.kill()
    driver.wait()
    for command in commands:
        go(command)
    told = sorted((command.communicate(timeout=60)[0] for command in commands), key=lambda text: "succeeded" in text)
    assert [command.returncode for command in commands] == [0, 0]
    assert f"{operation.id}: left to process " in told[0]
    assert "succeeded" not in told[0]
    assert f"{operation.id}: succeeded" in told[1]
    assert steps(operation) == [10, 50, 100]
    # 50 and 100: each table was written once.
    assert int(local.state.version) == version + 2
    assert [line.entry.what for line in local.history] == ["promoted", "promoted"]
    assert local.history.verify() == 2
