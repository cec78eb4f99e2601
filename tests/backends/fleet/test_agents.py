"""Fleets of real agents, and drivers that die while they are rolled out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modeldeploy import EdgeTarget, Model, Operation, RolloutPolicy
from modeldeploy.engine.record import Kind

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="agents need Unix sockets"),
]

ENOUGH_S = 90.0
RINGS = RolloutPolicy.rings((30, 60), soak=0.3, interval=0.1, patience=60)
NAMES = tuple(f"camera-{number}" for number in range(1, 5))
CHILD = """
import sys, time
from modeldeploy import EdgeTarget, Model, RolloutPolicy
rollout = EdgeTarget.get("street").rollout(Model.get("adds", sys.argv[1]), RolloutPolicy.rings((30, 60), soak=0.3, interval=0.1, patience=60), wait=False)
until = sys.argv[2]
while not any(event.name.value == until for event in rollout.operation.events()):
    time.sleep(0.01)
print(rollout.id, flush=True)
time.sleep(60)
"""


def adds(step, *, noise=False):
    """Make the ONNX model ``x + step``; with noise it never answers twice the same."""
    nodes = [helper.make_node("Add", ["x", "step"], ["y"])]
    if noise:
        nodes = [
            helper.make_node("RandomNormalLike", ["x"], ["noise"], scale=9.0),
            helper.make_node("Sum", ["x", "step", "noise"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "adds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows"])],
        [onnx.numpy_helper.from_array(np.array([step], dtype=np.float32), "step")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def model(number, *, noise=False):
    return Model(
        adds(float(number), noise=noise),
        name="adds",
        version=f"1.{number}.0",
        example={"x": np.ones(3, dtype=np.float32)},
    )


def wait_for(holds):
    until = time.monotonic() + ENOUGH_S
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)


@pytest.fixture
def street(modeldeploy_home, tmp_path):
    """Give a fleet of four real agents that run version 1.1.0."""
    target = EdgeTarget.fleet("street")
    target.deploy(model(1), RINGS)
    agents = []
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            command = target.agent(name, home=tmp_path / name, poll=0.2, settle=0.2, heartbeat=1)
            log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
            agents.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)))
            stack.callback(agents[-1].terminate)
        for agent in agents:
            assert json.loads(agent.stdout.readline())["ready"]
        wait_for(lambda: target.status.settled and len(target.devices) == len(NAMES))
        yield target


def runs(target):
    return {device.revision for device in target.devices}


def test_a_bad_version_is_refused_by_real_agents_and_a_good_one_taken(street):
    (first,) = runs(street)
    halted = street.rollout(model(2, noise=True), RINGS)
    assert halted.status == "paused"
    assert "does not give its recorded answers" in halted.outcome
    assert runs(street) == {first}
    street.rollback(reason="bad")
    assert street.rollout(model(3), RINGS).status == "succeeded"
    assert len(runs(street) - {first}) == 1
    street.rollback()
    assert runs(street) == {first}
    assert street.history.verify() == 4


@pytest.mark.parametrize("until", ["rollout.step", "traffic.changed"], ids=["in-a-ring", "between"])
def test_a_driver_that_is_killed_is_succeeded_by_another_for_devices_too(street, until):
    version = model(4).version
    child = subprocess.Popen([sys.executable, "-c", CHILD, version, until], stdout=subprocess.PIPE, text=True)
    with child:
        operation = child.stdout.readline().strip()
        os.kill(child.pid, signal.SIGKILL)
    assert Operation.get(operation, backend="fleet").status == "running"
    done = subprocess.run(
        [sys.executable, "-m", "modeldeploy.cli", "drive"],
        env={**os.environ, "MODELDEPLOY_BACKEND": "fleet"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = street._session.journal.latest(backend="fleet", target="street", kind=Kind.ROLLOUT)
    assert (record.id, record.phase.value) == (operation, "succeeded")
    steps = [
        event.fields["percent"]
        for event in street._session.journal.events(operation)
        if event.name.value == "rollout.step"
    ]
    assert steps == sorted(set(steps)), "a ring was reached twice"
    assert street.status.settled
    assert len(runs(street)) == 1
