"""A simulated account whose devices act when a test says so, and the suite's harness over it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modeldeploy.backends.greengrass.pace import Pace
from modeldeploy.backends.greengrass.rehearsal import Rehearsal
from modeldeploy.edge.desired import place
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.simulate.greengrass import Simulator
from modeldeploy.simulate.greengrass.records import Timings
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.testing.devices import PLACES, Behaviour
from modeldeploy.testing.edge import EdgeHarness
from modeldeploy.values.serving import EndpointSpec, Revision
from modeldeploy.values.ticket import Phase

# By it a device is offline after 2.5 seconds of the suite's clock, and a change waits for 7.5.
SPEED = 120.0
AT_ONCE = Timings(deployable=0.0, queue=0.0, apply=0.0)


@pytest.fixture(scope="session", autouse=True)
def _no_account():
    """See to it that no test can meet an account of whoever runs it."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in kept:
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    yield
    del os.environ["AWS_EC2_METADATA_DISABLED"]
    os.environ.update(kept)


@pytest.fixture(scope="session")
def shelf():
    """Package four models, once; give the home and their revisions."""
    home = Path(tempfile.mkdtemp(prefix="mdgg"))
    x = np.arange(12.0).reshape(6, 2)
    store = Store(home / "store")
    bundles = [
        package(
            LinearRegression().fit(x, step * x[:, 0]), name="line", version=f"1.{step}.0", example=x[:2], store=store
        )
        for step in range(4)
    ]
    yield home, tuple(Revision.of(bundle.model_version()) for bundle in bundles)
    shutil.rmtree(home)


@pytest.fixture
def revisions(shelf):
    return shelf[1]


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

    def __init__(self, backend: Rehearsal, broken: str) -> None:
        self._backend, self._broken = backend, broken
        self.simulator = backend.simulator
        self.behaviour = Behaviour()
        self._fleets: dict[str, list[str]] = {}

    def of(self, target: str) -> list[str]:
        if target not in self._fleets:
            self._fleets[target] = [self._add(target, at) for at in PLACES]
            # Whoever sets a device up after a target was deployed tells the target so.
            if self._backend.observe(target) is not None:
                self._backend.enrol(target)
        return self._fleets[target]

    def _add(self, target: str, at: int) -> str:
        names = (f"{target}-device-{number}" for number in itertools.count())
        name = next(each for each in names if place(target, each) == at)
        self.simulator.add_device(name, group=target)
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
def account():
    """Give one simulator for the module, by a virtual clock; its devices act by ``act`` alone."""
    clock = FlowingClock()
    with Simulator(speed=SPEED, clock=Still(clock), manual=True, timings=AT_ONCE) as simulator:
        yield simulator, clock


@pytest.fixture
def harness_of(account, shelf):
    simulator, clock = account
    home, revisions = shelf
    made = []

    def make(*, sample=1, fault_sample=1, speed=SPEED):
        def backend():
            found = Rehearsal(simulator, home=home, clock=clock.now, pace=Pace(speed, silent_s=300.0))
            made.append(found)
            return found

        mine = backend()
        yard = Yard(mine, revisions[3].id)
        return EdgeHarness(
            mine,
            revisions[:3],
            broken=revisions[3],
            clock=clock,
            writes=lambda: sum(each._client.writes for each in made),
            reopen=backend,
            sample=sample,
            fault_sample=fault_sample,
            # The first call loads the models of four services, which takes a second of a quiet machine.
            call_seconds=20.0,
            act=yard.act,
            behave=yard.behave,
        )

    return make


@pytest.fixture
def harness(harness_of):
    made = harness_of()
    yield made
    made.cleanup()


@pytest.fixture
def rehearsal(shelf):
    """Give a backend on an account whose devices act by themselves, ten minutes in a second."""
    from modeldeploy.backends.greengrass import Greengrass

    made = Greengrass.rehearsal(home=shelf[0])
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

        wait_until(ended, 60, what=f"the end of {ticket.action.value}", interval=0.02)
        assert state[0].phase is wanted, state[0].note
        return state[0]

    return run


@pytest.fixture
def plant():
    return EndpointSpec("plant")
