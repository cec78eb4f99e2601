"""What is killed comes back, and costs little or nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap

import psutil
import pytest

from modeldeploy.backends.local import client
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.backends.local.client import gone
from modeldeploy.errors import PredictionError, QuotaError
from modeldeploy.values.serving import EndpointSpec
from modeldeploy.values.ticket import Phase


@pytest.mark.row(1)
def test_killing_a_worker_under_load_fails_no_request(local, under_load, wait_until):
    revision = local.revision(1)
    local.deploy(revision)
    with under_load(1.0) as load:
        for _round in range(3):
            (pid,) = wait_until(lambda: _ready_workers(local, revision))
            seen = len(load.statuses)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: _ready_workers(local, revision) not in ([], [pid]))
            wait_until(lambda seen=seen: len(load.statuses) > seen + 20)
    assert load.failed == []


def test_a_request_that_kills_its_worker_ends_after_two_tries_and_others_are_served(local, under_load):
    local.deploy(local.revision(1))
    with under_load(1.0, connections=4) as load, pytest.raises(PredictionError, match="died"):
        local.predict(-1.0, timeout=20)
    assert load.failed == []
    assert local.predict(1.0) == [2.0]


@pytest.mark.row(4)
def test_killing_the_front_brings_it_back_on_the_same_port(local, wait_until):
    local.deploy(local.revision(1))
    url, front = local.backend.observe("iris").url, local.backend.processes()["front"]
    os.kill(front, signal.SIGKILL)
    # The supervisor still holds the listening socket: this connection waits for the next front.
    with contextlib.closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))) as waiting:
        waiting.settimeout(20)
        waiting.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        # It has its table and its workers before anybody is let in.
        assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: local.backend.processes()["front"] != front)
    assert local.backend.observe("iris").url == url
    assert local.predict(1.0) == [2.0]


@pytest.mark.row(4)
def test_killing_the_supervisor_leaves_no_orphan_and_the_next_call_brings_all_back(local, wait_until):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    local.shift({first.id: 70, second.id: 30})
    before = local.backend.observe("iris")
    processes = local.backend.processes()
    every = [
        processes["front"],
        *processes["forkservers"],
        *(pid for pids in processes["workers"].values() for pid in pids),
    ]
    os.kill(processes["supervisor"], signal.SIGKILL)
    wait_until(lambda: not any(_alive(pid) for pid in every), what="the end of all processes")
    assert local.predict(1.0, revision=first.id, timeout=20) == [2.0]
    after = local.backend.observe("iris")
    assert (after.url, after.traffic, after.version) == (before.url, before.traffic, before.version)
    wait_until(lambda: all(each.ready for each in local.backend.observe("iris").revisions))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_process_whose_own_parent_has_not_noticed_its_end_is_gone(wait_until):
    """As when a notebook started the supervisor, and a terminal stops it."""
    parent = "import os, sys; print(os.posix_spawn('/bin/true', ['true'], {}), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        wait_until(lambda: gone(child), timeout=20)
        assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        process.stdin.close()


def test_deleting_the_home_ends_what_serves_it_and_the_next_deployment_is_another_one(local, wait_until):
    local.deploy(local.revision(1))
    assert local.predict(1.0) == [2.0]
    processes = local.backend.processes()
    shutil.rmtree(local.home)
    local.deploy(local.revision(2))
    assert local.predict(1.0) == [3.0]
    wait_until(lambda: not _alive(processes["supervisor"]), timeout=30, what="the end of the old supervisor")
    assert not _alive(processes["front"])
    assert local.backend.processes()["supervisor"] != processes["supervisor"]
    assert local.predict(1.0) == [3.0]


def test_endpoints_come_back_after_a_shutdown(local):
    local.deploy(local.revision(1))
    url = local.backend.observe("iris").url
    local.backend.shutdown()
    assert local.backend.processes() == {}
    assert local.predict(1.0, timeout=20) == [2.0]
    assert local.backend.observe("iris").url == url


def test_another_port_is_taken_when_somebody_else_has_ours(local):
    local.deploy(local.revision(1))
    url = local.backend.observe("iris").url
    local.backend.shutdown()
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        other = local.backend.observe("iris").url
        assert other != url
        assert local.predict(1.0, timeout=20) == [2.0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_table_that_cannot_be_written_changes_nothing(local):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    pid = local.backend.processes()["supervisor"]
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    with pytest.raises(QuotaError, match="nothing was changed"):
        local.shift({second.id: 100})
    state = local.backend.observe("iris")
    assert (state.traffic.live, state.settled) == ({first.id: 100}, True)
    assert local.predict(1.0) == [2.0]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    local.shift({second.id: 100})
    assert local.predict(1.0) == [3.0]


def test_killing_the_front_again_and_again_while_endpoints_come_and_go_loses_none(local, wait_until):
    for step in (1, 2, 3):
        ticket = local.backend.put_revision(EndpointSpec(f"iris-{step}"), local.revision(step))
        ticket = local.backend.advance(ticket)
        os.kill(wait_until(lambda: local.backend.processes()["front"]), signal.SIGKILL)
        assert local.carry(ticket).phase is Phase.SUCCEEDED
    for step in (1, 2, 3):
        assert local.predict(1.0, endpoint=f"iris-{step}", timeout=20) == [1.0 + step]


def test_killing_the_fork_server_costs_its_workers_and_they_come_back(local, wait_until):
    revision = local.revision(1)
    local.deploy(revision)
    (before,) = local.workers(revision)
    for pid in local.backend.processes()["forkservers"]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: local.workers(revision) not in ([], [before]), timeout=20)
    assert local.predict(1.0, timeout=20) == [2.0]


def test_a_stopped_worker_is_replaced_at_the_deadline(local, wait_until):
    revision = local.revision(1, deadline="0.3")
    local.deploy(revision)
    (before,) = local.workers(revision)
    os.kill(before, signal.SIGSTOP)
    with pytest.raises(PredictionError) as caught:
        local.predict(1.0)
    assert caught.value.status == 504
    wait_until(lambda: local.workers(revision) not in ([], [before]), timeout=20)
    wait_until(lambda: local.backend.observe("iris").revision(revision.id).ready)
    assert local.predict(1.0) == [2.0]


@pytest.mark.row(6)
def test_swapping_traffic_and_dropping_under_load_fails_no_request(local, under_load, wait_until):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    with under_load(1.0) as load:
        for turn in range(100):
            to = (second, first)[turn % 2]
            assert local.shift({to.id: 100}).phase is Phase.SUCCEEDED
        wait_until(lambda: len(load.statuses) > 200)
        local.shift({second.id: 100})
        local.carry(local.backend.drop_revision("iris", first.id))
        done = len(load.statuses)
        wait_until(lambda: len(load.statuses) > done + 100)
    assert load.failed == []
    assert {revision for _status, revision in load.statuses[done + 8 :]} == {second.id}


def test_two_processes_that_start_the_supervisor_at_once_reach_the_same_one(local):
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from modeldeploy.backends.local.backend import LocalBackend
        backend = LocalBackend(Path(sys.argv[1]))
        print(backend._control.ask("ping"))
    """)
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(local.home)], stdout=subprocess.PIPE) for _each in range(4)
    ]
    pids = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(pids) == 1
    assert pids != {b""}


def test_two_backends_deploy_the_same_revision_and_it_is_one(local):
    revision, other = local.revision(1), LocalBackend(local.home)
    tickets = [each.put_revision(EndpointSpec("iris"), revision) for each in (local.backend, other)]
    assert [local.carry(ticket).phase for ticket in tickets] == [Phase.SUCCEEDED] * 2
    assert len(local.workers(revision)) == 1
    other.close()


def test_every_step_may_be_repeated(local):
    revision = local.revision(1)
    start = local.backend.put_revision(EndpointSpec("iris"), revision)
    assert local.backend.advance(start) == local.backend.advance(start)
    assert local.carry(start).phase is Phase.SUCCEEDED
    assert local.carry(start).phase is Phase.SUCCEEDED
    assert local.backend.observe("iris").version == local.backend.observe("iris").version
    assert len(local.workers(revision)) == 1


def test_several_workers_of_a_revision_all_serve(local):
    revision = local.revision(1, workers=2)
    local.deploy(revision)
    assert len(local.workers(revision)) == 2
    assert local.predict(1.0) == [2.0]


def test_a_spawned_worker_serves_as_a_forked_one_does(local):
    local.deploy(local.revision(1, start="spawn"))
    assert local.predict(1.0) == [2.0]


def test_a_long_home_is_no_problem(modeldeploy_home, make_local):
    deep = make_local(modeldeploy_home / ("long" * 20) / ("path" * 20))
    deep.deploy(deep.revision(1))
    assert deep.predict(1.0) == [2.0]


def test_a_supervisor_with_nothing_to_serve_ends_by_itself(modeldeploy_home, wait_until):
    backend = LocalBackend(modeldeploy_home, idle_exit=0.1)
    backend.warm("function")
    pid = backend.processes()["supervisor"]
    wait_until(lambda: gone(pid), timeout=20)
    assert backend.processes() == {}


def test_what_is_expected_is_being_started_while_the_caller_goes_on(local, wait_until):
    revision = local.revision(1)
    local.backend.expect(revision)
    local.backend.expect(revision)
    assert not local.backend.endpoints()
    processes = wait_until(local.backend.processes, timeout=20)
    local.deploy(revision)
    after = local.backend.processes()
    assert after["supervisor"] == processes["supervisor"]
    assert len(after["forkservers"]) == 1


@pytest.mark.parametrize("options", [{"start": "spawn"}, {"threads": "2"}], ids=str)
def test_no_libraries_are_loaded_for_workers_that_are_not_forked(local, wait_until, options):
    local.backend.expect(local.revision(1, **options))
    wait_until(local.backend.processes, timeout=20)
    assert local.backend.processes()["forkservers"] == []


def test_libraries_are_loaded_by_a_supervisor_that_runs_already(local, wait_until):
    local.backend.warm("")
    local.backend.expect(local.revision(1))
    wait_until(lambda: len(local.backend.processes()["forkservers"]) == 2, timeout=20)


def test_a_supervisor_that_is_only_just_starting_is_shut_down(local):
    local.backend.expect(local.revision(1))
    (pid,) = client._started
    local.backend.shutdown()
    assert gone(pid)
    assert local.backend.processes() == {}


def _ready_workers(local, revision):
    return local.workers(revision) if local.backend.observe("iris").revision(revision.id).ready else []


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
