"""What the parts of the simulator share: names, time, faults, and the threads of what goes on by itself."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.faults import Faults
from modeldeploy.simulate.vertex.names import Site

STAGES = (
    "STARTING_DEPLOYMENT",
    "PREPARING_MODEL",
    "CREATING_SERVING_CLUSTER",
    "ADDING_NODES_TO_CLUSTER",
    "GETTING_CONTAINER_IMAGE",
    "STARTING_MODEL_SERVER",
    "FINISHING_UP",
)


@attrs.frozen
class Timings:
    """How long the service takes, in its own seconds; all but the first are assumed."""

    upload: float = 2.6
    endpoint: float = 5.0
    stage: float = 40.0
    """Of a deployment, of which there are seven."""
    undeploy: float = 40.0
    mutate: float = 60.0
    delete: float = 5.0
    job: float = 200.0
    """From the creation of a batch prediction job to its start."""
    finalize: float = 20.0
    metrics: float = 60.0
    """How long a slot of the metrics is; they are told when it has ended."""


class StoppedError(Exception):
    """The simulator ends; whoever waits for the service's time gives up."""


@attrs.define(eq=False)
class World:
    """What everybody needs."""

    site: Site
    clock: Clock
    speed: float
    faults: Faults
    timings: Timings
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    stopping: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)
    _etags: itertools.count[int] = attrs.field(factory=itertools.count)

    def etag(self) -> str:
        """Make an entity tag that nothing else has."""
        return f"AMEw{next(self._etags):06d}{secrets.token_urlsafe(12)}"

    def new_id(self) -> str:
        """Draw an id as the service does: nineteen digits."""
        return str(secrets.randbelow(9 * 10**18) + 10**18)

    def now(self) -> Any:
        """Tell the time as messages have it."""
        return proto.instant(self.clock.now())

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
