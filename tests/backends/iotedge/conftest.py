"""A simulated hub whose devices act when a test says so, and the suite's harness over it."""

from __future__ import annotations

import hashlib
import itertools
import os

import pytest

from modeldeploy.backends.iotedge.rehearsal import Rehearsal
from modeldeploy.edge.desired import place
from modeldeploy.simulate.iothub import Simulator
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.devices import PLACES, Behaviour
from modeldeploy.testing.edge import EdgeHarness
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import EndpointSpec, Revision
from modeldeploy.values.ticket import Phase

# By it a device is offline after 2.5 seconds of the suite's clock, and a change waits for 7.5.
SPEED = 120.0
IMAGE = "registry.example/server:{version}"
WRITES = {
    "Configuration_CreateOrUpdate",
    "Configuration_Delete",
    "Configuration_ApplyOnEdgeDevice",
    "Devices_UpdateTwin",
}


@pytest.fixture(scope="session", autouse=True)
def _no_account():
    """See to it that no test can meet a hub of whoever runs it."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("AZURE_", "IOTHUB_"))}
    for name in kept:
        del os.environ[name]
    yield
    os.environ.update(kept)


def model_of(version: str, name: str = "iris") -> ModelVersion:
    digest = f"sha256:{hashlib.sha256(version.encode()).hexdigest()}"
    signature = Signature((Field("x", DType.FLOAT32, (4,)),), (Field("y", DType.INT64),))
    return ModelVersion(name, version, digest, "/nowhere", "onnx", signature)


@pytest.fixture(scope="session")
def revisions():
    return tuple(Revision.of(model_of(f"{number}.0.0")) for number in range(1, 5))


class Still:
    """The service's time is that of a virtual clock."""

    def __init__(self, clock):
        self._clock = clock

    def now(self):
        return self._clock.now()

    def after(self, seconds):
        return self._clock.now() + seconds / SPEED

    def wait(self, _seconds, stop):
        return stop.is_set()


class Yard:
    """Six devices for every target that acts, at the places of the suite's stand-ins."""

    def __init__(self, simulator: Simulator, broken: str) -> None:
        self.simulator, self._broken = simulator, broken
        self.behaviour = Behaviour()
        self._fleets: dict[str, list[str]] = {}

    def of(self, target: str) -> list[str]:
        if target not in self._fleets:
            self._fleets[target] = [self._add(target, at) for at in PLACES]
        return self._fleets[target]

    def _add(self, target: str, at: int) -> str:
        names = (f"{target}-device-{number}" for number in itertools.count())
        name = next(each for each in names if place(target, each) == at)
        self.simulator.add_device(name, fleet=target)
        return name

    def behave(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    def act(self, target: str) -> None:
        failing = self.behaviour.failing
        for number, name in enumerate(self.of(target)):
            refuses = not self.behaviour.well and (failing is None or number in failing)
            self.simulator.faults.failing[name] = {self._broken} if refuses else set()
            self.simulator.set_online(name, online=number not in self.behaviour.offline)
        self.simulator.act()


@pytest.fixture(scope="module")
def hub():
    """Give one simulator for the module, by a virtual clock; its devices act by ``act`` alone."""
    clock = FlowingClock()
    with Simulator(speed=SPEED, clock=Still(clock), manual=True) as simulator:
        yield simulator, clock


@pytest.fixture
def harness_of(hub, revisions):
    simulator, clock = hub

    def make(*, sample=1, fault_sample=1, **options):
        def backend():
            return Rehearsal(simulator, image=IMAGE, clock=clock.now, **options)

        yard, mine = Yard(simulator, revisions[3].id), backend()
        return EdgeHarness(
            mine,
            revisions[:3],
            broken=revisions[3],
            clock=clock,
            writes=lambda: sum(operation in WRITES for operation, _names in simulator.heard),
            reopen=backend,
            sample=sample,
            fault_sample=fault_sample,
            act=yard.act,
            behave=yard.behave,
        )

    yield make
    with simulator.hub.lock:
        simulator.hub.devices.clear()
        simulator.hub.configurations.clear()


@pytest.fixture
def harness(harness_of):
    return harness_of()


@pytest.fixture
def rehearsal():
    """Give a backend on a hub whose devices act by themselves, ten minutes in a second."""
    from modeldeploy.backends.iotedge import IoTEdge

    made = IoTEdge.rehearsal(image=IMAGE)
    yield made
    made.close()


@pytest.fixture
def carry(wait_until):
    """Give ``carry(backend, ticket)``: advance it to its end."""

    def run(backend, ticket, *, wanted=Phase.SUCCEEDED):
        state = [ticket]

        def ended():
            state[0] = backend.advance(state[0])
            return state[0].phase.ended

        wait_until(ended, 30, what=f"the end of {ticket.action.value}", interval=0.02)
        assert state[0].phase is wanted, state[0].note
        return state[0]

    return run


@pytest.fixture
def plant():
    return EndpointSpec("plant")


@pytest.fixture
def based(hub):
    """Give ``based(harness)``: the hub has a deployment without modules for every device, as an operator's own base."""
    simulator, _clock = hub

    def give(harness):
        from modeldeploy.backends.iotedge import manifest
        from modeldeploy.values.serving import Revision

        content = manifest.content("base", Revision.of(model_of("0.0.1")), manifest.Defaults(image="nothing"))
        content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"] = {}
        del content["modulesContent"]["base"]
        simulator.hub.put("base", {"targetCondition": "*", "priority": 0, "content": content}, None)
        return harness

    return give
