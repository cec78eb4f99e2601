"""Rows 17, 18 and 20: memory over a million requests, descriptors that run out, logs that nobody reads or that do not fit."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from http.client import HTTPConnection

import psutil
import pytest

TALK, RAISE, NAN = -13.0, -16.0, -15.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are set on Linux only")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.row(17)
def test_memory_stays_as_it_is_over_a_million_requests(ground, measured):
    ground.deploy()
    good, wrong = ground.body(1.0), '{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}'
    plain = [good] * 13 + [wrong, "{", good]
    bursts = [plain] * 49 + [[good] * 14 + [ground.body(NAN), ground.body(RAISE)]]
    pids, step = (ground.front, *ground.workers), 100_000
    flood = {"connections": 16, "bursts": bursts, "requests": step}
    warm = ground.clients("flood", **flood).result(timeout=600)
    assert set(warm) == {"200", "400", "422", "500"}
    sizes = [[_resident(pid) for pid in pids]]
    for _step in range(10):
        assert sum(ground.clients("flood", **flood).result(timeout=600).values()) == step
        sizes.append([_resident(pid) for pid in pids])
    assert (ground.front, *ground.workers) == pids
    slopes = [_slope([row[at] / 1e6 for row in sizes]) for at in range(len(pids))]
    measured("growth per 1e5 requests of front and worker, MB", slopes)
    assert max(slopes) < 1


def _resident(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


def _slope(values: list[float]) -> float:
    """Fit a line by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    above = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return above / sum((at - middle) ** 2 for at in range(len(values)))


@pytest.mark.row(18)
def test_when_descriptors_run_out_new_clients_are_told_to_come_back_and_the_others_are_served(ground, seconds_until):
    ground.deploy()
    assert ground.ask(1.0).status == 200
    front, supervisor = ground.front, ground.local.backend.processes()["supervisor"]
    for pid in (front, supervisor):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
    ground.wait_until(lambda: _refused(ground), timeout=20, what="the new limit, which is looked at once a second")
    with _crowd(ground, 100) as (connections, answers):
        assert {status for status, _retry in answers} <= {0, 200, 503}
        assert all(retry for status, retry in answers if status == 503)
        served = [each for each, (status, _retry) in zip(connections, answers, strict=True) if status == 200]
        assert len(served) >= 16
        for each in served:
            each.request("GET", "/readyz")
            answer = each.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
    assert seconds_until(lambda: ground.ask(1.0).status == 200) < 2
    assert ground.front == front, "it did not crash"
    (victim,) = ground.workers
    os.kill(victim, signal.SIGKILL)
    assert ground.ask(1.0).status == 200, "and a worker can still be replaced"


@contextlib.contextmanager
def _crowd(ground, number):
    """Open so many connections and ask on each; give them with (status, whether there is a time to come back), 0 when it was closed."""
    connections = [HTTPConnection("127.0.0.1", ground.port, timeout=20) for _each in range(number)]
    try:
        yield connections, [_ready(each) for each in connections]
    finally:
        for each in connections:
            each.close()


def _ready(connection):
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
    except OSError:
        return 0, False
    return answer.status, answer.getheader("retry-after") is not None


def _refused(ground):
    with _crowd(ground, 100) as (_connections, answers):
        return 503 in {status for status, _retry in answers}


@pytest.mark.row(20)
def test_a_log_pipe_that_nobody_reads_costs_lines_and_no_answer(ground):
    ground.deploy(deadline="5")
    supervisor = ground.local.backend.processes()["supervisor"]
    body, port = ground.body(TALK), ground.port
    os.kill(supervisor, signal.SIGSTOP)
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        for _each in range(500):
            connection.request("POST", "/v2/models/iris/infer", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        connection.close()
    finally:
        os.kill(supervisor, signal.SIGCONT)
    # The next line tells how many were lost.
    assert ground.ask(TALK).status == 200
    ground.wait_until(lambda: ground.metric("log_lines_dropped_total") > 0)
    whole = ground.wait_until(lambda: ground.log().count("y" * 200))
    # Two lines each; the one that the pipe tore counts as lost.
    assert 2 * whole + ground.metric("log_lines_dropped_total") == pytest.approx(2 * 501, abs=2)


@pytest.fixture
def small_disk(local):
    """Let the logs lie on a file system of 64 kB."""
    place = local.home / "local" / "logs"
    place.mkdir(mode=0o700, parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.row(20)
def test_a_full_disk_costs_lines_and_no_answer(ground, small_disk):
    ground.deploy()
    _talk_until_lost(ground)
    assert sum(path.stat().st_size for path in small_disk.rglob("*.log")) > 0


@pytest.mark.row(20)
def test_a_log_that_may_not_grow_costs_lines_and_no_answer(ground):
    ground.deploy()
    supervisor = ground.local.backend.processes()["supervisor"]
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (20_000, 20_000))
    _talk_until_lost(ground)
    (victim,) = ground.workers
    os.kill(victim, signal.SIGKILL)
    assert ground.ask(1.0).status == 200, "a worker is replaced, whatever the supervisor cannot write"


def _talk_until_lost(ground):
    for _each in range(400):
        assert ground.ask(TALK).status == 200
    ground.wait_until(lambda: ground.metric("log_lines_dropped_total") > 0)
    assert ground.ask(1.0).status == 200
