"""The service's time, which may be anybody's."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from modeldeploy.simulate.clock import ScaledClock
from modeldeploy.simulate.sagemaker import Simulator

IDLE = "import time\ntime.sleep(600)\n"


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self):
        self.at = time.time()
        self.changed = threading.Condition()
        self.waiting = 0

    def now(self):
        return self.at

    def after(self, seconds):
        return self.at + seconds

    def wait(self, seconds, stop):
        until = self.at + seconds
        with self.changed:
            self.waiting += 1
            while self.at < until and not stop.is_set():
                self.changed.wait(0.05)
            self.waiting -= 1
        return stop.is_set()

    def move(self, seconds):
        with self.changed:
            self.at += seconds
            self.changed.notify_all()


def test_states_pass_with_a_clock_that_is_given(wait_until):
    clock = ManualClock()
    with Simulator(clock=clock, images={"idle": (sys.executable, "-c", IDLE, "{port}")}) as simulator:
        sm = simulator.client("sagemaker")
        sm.create_model(ModelName="m", PrimaryContainer={"Image": "idle"}, ExecutionRoleArn=simulator.role)
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        simulator.faults.capacity = True
        sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
        wait_until(lambda: clock.waiting, what="the service works on it")
        clock.move(59.0)
        assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
        clock.move(1.0)
        wait_until(lambda: sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Failed", what="it failed")
        found = sm.describe_endpoint(EndpointName="e")
        assert (found["LastModifiedTime"] - found["CreationTime"]).total_seconds() == pytest.approx(60.0, abs=0.01)


def test_a_scaled_clock_tells_this_machines_time_and_waits_for_less():
    clock = ScaledClock(1000.0)
    begun = time.monotonic()
    assert clock.after(1000.0) - clock.now() == pytest.approx(1.0, abs=0.1)
    assert clock.wait(10.0, threading.Event()) is False
    assert time.monotonic() - begun < 5.0


def test_a_scaled_clock_stops_waiting_when_told():
    stop = threading.Event()
    stop.set()
    assert ScaledClock(1.0).wait(1000.0, stop) is True
