"""What the parts of the simulator share: names, time, faults, and the threads of what goes on by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from modeldeploy.simulate.azureml.faults import Faults
from modeldeploy.simulate.clock import Clock

NAMESPACE = "Microsoft.MachineLearningServices"


@attrs.frozen
class Timings:
    """How long the service takes, in its own seconds; the recorded sessions say 95, 20 and 600 for the first three."""

    endpoint: float = 90.0
    traffic: float = 20.0
    deployment: float = 300.0
    delete: float = 30.0
    keys: float = 10.0
    batch_deployment: float = 20.0
    job: float = 196.0
    """From the creation of a batch job to its start."""
    finalize: float = 15.0
    token: float = 86_400.0
    """How long a token of an endpoint is good."""
    metrics: float = 60.0
    """How long a slot of the metrics is; they are told when it has ended."""
    poll: float = 10.0
    """What ``Retry-After`` says while an operation goes on."""


@attrs.frozen
class Site:
    """Where everything is: subscription, resource group, workspace, region, and the workspace's storage account."""

    subscription: str
    tenant: str
    resource_group: str
    workspace: str
    workspace_id: str
    region: str
    account: str
    container: str
    """Where the workspace's blob store lies."""
    artifacts: str
    """Where logs of jobs lie."""

    @property
    def group(self) -> str:
        """The resource id of the resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"

    @property
    def id(self) -> str:
        """The resource id of the workspace."""
        return f"{self.group}/providers/{NAMESPACE}/workspaces/{self.workspace}"

    @property
    def locations(self) -> str:
        """Where operations are looked up."""
        return f"/subscriptions/{self.subscription}/providers/{NAMESPACE}/locations/{self.region}"


class StoppedError(Exception):
    """The simulator ends; whoever waits for the service's time gives up."""


@attrs.define(eq=False)
class World:
    """What everybody needs."""

    site: Site
    clock: Clock
    faults: Faults
    timings: Timings
    url: str
    storage_url: str
    """The URL of the storage account."""
    speed: float
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    stopping: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def wait(self, seconds: float) -> None:
        """Let seconds of the service pass; StoppedError when the simulator ends."""
        if self.clock.wait(seconds, self.stopping):
            raise StoppedError

    def go(self, name: str, work: Callable[[], None]) -> None:
        """Do something beside what callers ask for, as the service does."""

        def run() -> None:
            try:
                work()
            except StoppedError:
                return

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self.lock:
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Wake whoever waits, and wait until they have ended."""
        self.stopping.set()
        for thread in list(self._threads):
            thread.join()

    def retry_after(self, seconds: float) -> dict[str, str]:
        """Write the headers that tell when to come again."""
        here = seconds / self.speed
        # Whole seconds are the least that Retry-After can say; the second header is azure-core's finer form of it.
        return {"Retry-After": str(max(1, round(here))), "retry-after-ms": str(max(10, round(here * 1000)))}


def stamp(at: float) -> str:
    """Write an instant as the service does."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")
