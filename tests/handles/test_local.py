"""The same handles on this machine: real bundles, real processes, and a driver that is killed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time

import pytest

from modeldeploy import Endpoint, Operation
from modeldeploy.handles.rollout import Rollout

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")


@pytest.fixture
def local(modeldeploy_home, model):
    """An endpoint on this machine that serves 1.1.0; all processes are ended after the test."""
    endpoint = Endpoint.deploy(model(1), "iris")
    yield endpoint
    endpoint.delete()
    endpoint._session.backend.shutdown()


def versions(endpoint):
    return {endpoint.state.revision(name).revision.model.version: share for name, share in endpoint.traffic.items()}


def test_a_model_answers_rolls_out_and_back(local, model, estimator, table):
    expected = {number: estimator(number).predict(table.head(3)) for number in (1, 2)}
    assert local.predict(table.head(3)).tolist() == pytest.approx(expected[1])
    local.rollout(model(2))
    assert local.predict(table.head(3)).tolist() == pytest.approx(expected[2])
    local.rollback()
    assert local.predict(table.head(3)).tolist() == pytest.approx(expected[1])
    assert [line.entry.what for line in local.history] == ["promoted", "promoted", "rolled-back"]
    assert local.history.verify() == 3


def test_a_rollback_under_load_loses_nothing(local, model, estimator, table):
    row = table.head(1)
    good = [pytest.approx(estimator(number).predict(row)[0]) for number in (1, 2)]
    local.rollout(model(2))
    stop, answers, errors = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                answers.append(local.predict(row).iloc[0])
            except Exception as error:  # noqa: BLE001 - every one counts
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    took = []
    for number in range(10):
        began = time.perf_counter()
        local.rollback(to="1.1.0" if number % 2 == 0 else "1.2.0")
        took.append(time.perf_counter() - began)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(answers) > 10
    assert all(answer in good for answer in answers)
    assert statistics.median(took) < 1.0
    assert versions(local) == {"1.2.0": 100}


def test_only_what_is_asked_is_answered_by_the_old_revision(local, model, estimator, table):
    local.rollout(model(2))
    assert local.predict(table.head(1), revision="1.1.0").iloc[0] == pytest.approx(
        estimator(1).predict(table.head(1))[0]
    )


DRIVER = """
import sys
from modeldeploy import Endpoint, Model, RolloutPolicy
endpoint = Endpoint.get("iris")
policy = RolloutPolicy.canary((10, 50), soak=float(sys.argv[1]), interval=0.05)
rollout = endpoint.rollout(Model.get("iris", "1.2.0"), policy, wait=False)
print(rollout.id, flush=True)
sys.stdin.readline()
"""


def test_another_process_takes_up_the_rollout_of_one_that_was_killed(local, model, wait_until):
    second = model(2)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        name = process.stdout.readline().strip()
        wait_until(lambda: versions(local).get(second.version) == 10, timeout=30)
        operation = Operation.get(name)
        assert operation.status == "running"
        process.kill()
    assert versions(local) == {"1.1.0": 90, "1.2.0": 10}
    assert [each.id for each in Operation.unfinished()] == [name]
    operation.wait(60)
    assert operation.status == "succeeded"
    assert versions(local) == {"1.2.0": 100}
    steps = [event.fields["percent"] for event in operation.events() if event.name.value == "rollout.step"]
    assert steps == [10, 50, 100]


def test_a_word_reaches_the_process_that_drives(local, model, wait_until):
    model(2)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, "600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        rollout = Rollout.get(process.stdout.readline().strip())
        wait_until(lambda: versions(local).get("1.2.0") == 10, timeout=30)
        rollout.pause("lunch")
        wait_until(lambda: rollout.status == "paused", timeout=30)
        rollout.promote(timeout=60)
        process.kill()
    assert rollout.status == "succeeded"
    assert versions(local) == {"1.2.0": 100}
