"""Fleets of two clouds by their handle, on their rehearsals: the same verbs, the same rings."""

from __future__ import annotations

import time

import pytest

from modeldeploy import EdgeTarget, RolloutPolicy
from modeldeploy.backends.greengrass.backend import Greengrass
from modeldeploy.backends.iotedge.backend import IoTEdge
from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.errors import ConfigurationError
from modeldeploy.handles.parts import How

RINGS = RolloutPolicy.rings((40,), soak=0.05, interval=0.05, patience=60)


@pytest.fixture(params=["greengrass", "iot_edge"])
def street(request):
    """Give a target, and a function that adds devices to it."""
    if request.param == "greengrass":
        backend = Greengrass.rehearsal()
        target = EdgeTarget.greengrass("street", backend=backend)

        def add(number):
            for at in range(number):
                backend.simulator.add_device(f"street-{at}", group="street")

    else:
        backend = IoTEdge.rehearsal()
        target = EdgeTarget.iot_edge("street", backend=backend)

        def add(number):
            for at in range(number):
                backend.simulator.add_device(f"street-{at}", fleet="street")

    yield target, add
    backend.close()


@pytest.mark.slow
def test_a_model_reaches_the_devices_of_a_cloud_ring_by_ring_and_goes_back(street, model):
    target, add = street
    add(6)
    target.deploy(model(1), RINGS, timeout=60)
    (first,) = target.shares
    assert {device.revision for device in target.devices} == {first}
    rollout = target.rollout(model(2), RINGS, timeout=60)
    assert rollout.status == "succeeded", rollout.outcome
    assert {device.revision for device in target.devices} == {rollout.revision.id}
    target.rollback(timeout=60)
    until = time.monotonic() + 60
    while {device.revision for device in target.devices} != {first}:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert [line.entry.what for line in target.history] == ["promoted", "promoted", "rolled-back"]
    target.delete(timeout=60)


@pytest.mark.slow
def test_a_plan_does_not_promise_what_a_cloud_does_not_do(street, model):
    target, _add = street
    tests = next(part for part in target.plan(model(1), RINGS).parts if part.what == "failed self-tests")
    assert tests.how is (How.NATIVE if "greengrass" in repr(target) else How.SKIPPED)


@pytest.mark.parametrize("make", [EdgeTarget.greengrass, EdgeTarget.iot_edge], ids=["greengrass", "iot-edge"])
def test_another_backend_is_no_such_cloud(make):
    with pytest.raises(ConfigurationError, match="called 'memory'"):
        make("street", backend=MemoryBackend())
    with pytest.raises(ConfigurationError, match="region"):
        make("street", backend=MemoryBackend(), region="eu-west-1")
