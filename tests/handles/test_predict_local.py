"""Predicting through real processes: from threads, forked and spawned processes, over a front that dies, and with tables larger than any request."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from modeldeploy import Endpoint, Model
from modeldeploy.errors import ModelDeployError

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets"),
    # Python warns of forking with threads, which is what is tested.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
WIDTH = 10


class Doubling:
    """Answers each row with twice the sum of its columns, so that every row tells whose answer it is."""

    def predict(self, rows):
        return np.asarray(rows).sum(axis=1) * 2


@pytest.fixture
def double(modeldeploy_home):
    """An endpoint that doubles; all processes are ended after the test."""
    endpoint = Endpoint.deploy(Model(Doubling(), name="double", version="1.0.0", example=rows_of(0, 5)))
    yield endpoint
    endpoint.delete()
    endpoint._session.backend.shutdown()


def rows_of(number, rows=3):
    """Make rows that nobody else makes."""
    return np.full((rows, WIDTH), float(number)) + np.arange(rows)[:, None]


def wrong_answers(endpoint, number, times):
    """Ask so many times, each with other rows; give what was not answered with its own."""
    wrong = []
    for at in range(times):
        data = rows_of(number * 1_000 + at, rows=1 + at % 5)
        got = endpoint.predict(data)
        if got.tolist() != (data.sum(axis=1) * 2).tolist():
            wrong.append((number, at, got.tolist()))
    return wrong


def hammer(endpoint, number, *, threads=4, times=25):
    wrong = []
    running = [
        threading.Thread(target=lambda at=at: wrong.extend(wrong_answers(endpoint, number * 100 + at, times)))
        for at in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return wrong


def in_a_forked_process(endpoint, number):
    sys.exit(bool(hammer(endpoint, number)))


def ended_well(processes):
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_threads_and_forked_processes_share_one_endpoint_and_get_their_own_answers(double):
    assert wrong_answers(double, 1, 3) == []  # a connection is open when the processes are forked
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=in_a_forked_process, args=(double, number)) for number in (2, 3, 4)]
    for process in processes:
        process.start()
    assert hammer(double, 5) == []
    assert ended_well(processes) == [0, 0, 0]
    assert wrong_answers(double, 6, 3) == []


def test_forking_while_others_ask_gives_every_process_its_own_answers(double):
    """A thread may hold any lock of ours at the moment of a fork."""
    stop, wrong = threading.Event(), []

    def ask(number):
        while not stop.is_set():
            wrong.extend(wrong_answers(double, number, 5))

    threads = [threading.Thread(target=ask, args=(number,)) for number in (10, 11)]
    for thread in threads:
        thread.start()
    fork = multiprocessing.get_context("fork")
    codes = []
    try:
        for number in range(20, 25):
            process = fork.Process(target=in_a_forked_process, args=(double, number))
            process.start()
            codes += ended_well([process])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 5
    assert wrong == []


def test_a_spawned_process_finds_the_endpoint_by_its_name(double):
    # This file as a program: a module of tests is none that another process could import.
    processes = [subprocess.Popen([sys.executable, __file__, str(number)]) for number in (2, 3)]
    assert hammer(double, 4) == []
    assert [process.wait(60) for process in processes] == [0, 0]


def test_a_front_that_was_killed_between_two_calls_is_not_noticed(double, wait_until):
    backend = double._session.backend
    for round_ in range(3):
        assert wrong_answers(double, round_, 2) == []
        front = wait_until(lambda: backend.processes().get("front"))
        os.kill(front, signal.SIGKILL)
        assert wrong_answers(double, 10 + round_, 2) == []
        wait_until(lambda front=front: backend.processes().get("front") not in {0, front})


def test_fronts_that_are_killed_under_load_fail_no_caller(double, wait_until):
    stop, wrong, failed, answered = threading.Event(), [], [], [0]
    backend = double._session.backend

    def ask(number):
        while not stop.is_set():
            try:
                wrong.extend(wrong_answers(double, number, 5))
                answered[0] += 5
            except ModelDeployError as error:
                failed.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _round in range(2):
            front, seen = wait_until(lambda: backend.processes().get("front")), answered[0]
            os.kill(front, signal.SIGKILL)
            wait_until(lambda front=front: backend.processes().get("front") not in {0, front}, timeout=20)
            wait_until(lambda seen=seen: answered[0] > seen + 20, timeout=20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert wrong == []


def test_the_whole_backend_may_end_between_two_calls(double):
    assert wrong_answers(double, 1, 2) == []
    double._session.backend.shutdown()
    assert wrong_answers(double, 2, 2) == []


LARGE = """
import json, re, sys
import numpy as np, pandas as pd
from modeldeploy import Endpoint

rows, kind = int(sys.argv[1]), sys.argv[2]
endpoint = Endpoint.get("double")
rng = np.random.default_rng(0)
data = rng.random((rows, 10))
total = data.sum(axis=1) * 2
if kind != "numpy":
    data = pd.DataFrame(data, columns=[f"c{at}" for at in range(10)], index=range(7, rows + 7))
endpoint.predict(data[:100_000])  # what is imported and allocated once

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

open("/proc/self/clear_refs", "w").write("5")
before = peak()
got = endpoint.predict(data, timeout=100)
right = bool(np.allclose(np.asarray(got), total)) and len(got) == rows
if kind != "numpy":
    right = right and got.index.equals(data.index)
print(json.dumps({"right": right, "kilobytes": peak() - before}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("kind", ["numpy", "pandas"])
def test_two_million_rows_are_answered_in_little_memory(double, kind):
    """160 MB of numbers in requests of 5 MB; what may be there at one time is a few of those, the check of the whole, and the answers."""
    seen = subprocess.run(
        [sys.executable, "-c", LARGE, "2000000", kind], capture_output=True, text=True, check=True, timeout=110
    )
    found = json.loads(seen.stdout)
    assert found["right"]
    assert found["kilobytes"] < 120_000


if __name__ == "__main__":
    sys.exit(bool(hammer(Endpoint.get("double"), int(sys.argv[1]))))
