"""Replicas of deployed models: real processes that honour the container contract, restarted when they die."""

from __future__ import annotations

import functools
import itertools
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.processes import Child, Patience, StartError
from modeldeploy.simulate.vertex.containers import Contract, Start
from modeldeploy.simulate.vertex.errors import precondition
from modeldeploy.simulate.vertex.logbook import Logbook
from modeldeploy.simulate.vertex.world import StoppedError, World

_log = logging.getLogger(__name__)
_ROUND_S = 0.2
_PAUSE_S = 1.0
# However fast the service's time passes, a process of this machine takes this machine's.
_LEAST_UNWELL_S = 2.0
_DEPLOYMENT_TIMEOUT_S = 1_800.0
_LOGS = (
    "Model server logs can be found at https://console.cloud.google.com/logs/viewer?resource=aiplatform.googleapis.com"
)


@attrs.frozen
class Plan:
    """What each replica of a deployed model is made of; later changes of the model do not change it."""

    endpoint: str
    deployed: str
    model_id: str
    version: str
    container: Any
    resources: Any
    title: str = ""
    """The model's name for people."""


@attrs.define(eq=False)
class Fleet:
    """What answers for a deployed model at a time."""

    plan: Plan
    start: Start
    replicas: list[Child] = attrs.field(factory=list)
    again_s: float = 0.0
    """From when on a replica may be started again."""
    _turn: itertools.count[int] = attrs.field(factory=itertools.count)

    def next(self) -> Child | None:
        """Give the replica whose turn it is."""
        replicas = self.replicas
        return replicas[next(self._turn) % len(replicas)] if replicas else None


@attrs.define(eq=False)
class Replicas:
    """All processes of deployed models and of batch prediction jobs."""

    world: World
    contract: Contract
    launcher: Launcher
    logbook: Logbook
    directory: Path
    patience_s: float
    most: int
    """How many processes stand for the replicas of a deployed model at most."""
    _live: set[Child] = attrs.field(factory=set, init=False)
    _fleets: list[Fleet] = attrs.field(factory=list, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def fleet(self, plan: Plan, stop: threading.Event) -> Fleet:
        """Start as many processes as stand for the replicas, and wait until each is well."""
        if self.world.faults.once("unhealthy"):
            raise precondition(f"Model server never became ready. {_LOGS}")
        fleet = Fleet(plan, self.contract.start(plan))
        self._grow(fleet, plan.resources.min_replica_count, stop)
        with self._lock:
            self._fleets.append(fleet)
        return fleet

    def resize(self, fleet: Fleet, resources: Any, stop: threading.Event) -> None:
        """Start more processes, or end some."""
        wanted = self._number(resources.min_replica_count)
        with self._lock:
            spare, fleet.replicas = fleet.replicas[wanted:], fleet.replicas[:wanted]
        self._stop(spare)
        self._grow(fleet, wanted, stop)

    def _grow(self, fleet: Fleet, wanted: int, stop: threading.Event) -> None:
        fresh: list[Child] = []
        try:
            while len(fleet.replicas) + len(fresh) < self._number(wanted):
                fresh.append(self._started(fleet))
            for each in fresh:
                self._await(fleet, each, stop)
        except BaseException:
            self._stop(fresh)
            raise
        with self._lock:
            fleet.replicas = [*fleet.replicas, *fresh]

    def _number(self, wanted: int) -> int:
        return max(1, min(wanted, self.most))

    def _await(self, fleet: Fleet, replica: Child, stop: threading.Event) -> None:
        asked = fleet.plan.container.deployment_timeout.total_seconds() or _DEPLOYMENT_TIMEOUT_S
        limits = Patience(self.patience_s, max(_LEAST_UNWELL_S, asked / self.world.speed))
        try:
            replica.wait(limits, stop)
        except StartError as error:
            if stop.is_set():
                raise StoppedError from error
            what = "exited unexpectedly" if error.exited else "never became ready"
            message = f"Model server {what}. {_LOGS}"
            raise precondition(message) from error

    def single(self, plan: Plan, log: Callable[[str], None], stop: threading.Event) -> Child:
        """Start one process by itself and wait until it is well; whoever asked for it ends it with ``stop``."""
        fleet = Fleet(plan, self.contract.start(plan))
        replica = self._started(fleet, log)
        try:
            self._await(fleet, replica, stop)
        except BaseException:
            self._stop([replica])
            raise
        return replica

    def _started(self, fleet: Fleet, log: Callable[[str], None] | None = None) -> Child:
        plan = fleet.plan
        directory = Path(tempfile.mkdtemp(prefix="r", dir=self.directory))
        write = log or functools.partial(self.logbook.write, plan.endpoint, plan.deployed)
        replica = Child(self.launcher, directory, write, health=fleet.start.health)
        with self._lock:
            if self._closed:
                raise StoppedError
            self._live.add(replica)
        try:
            program, environment, port = fleet.start.made()
            if port is not None:
                replica.expect(port)
            replica.start(program, environment)
        except BaseException:
            self._stop([replica])
            raise
        return replica

    def end(self, fleet: Fleet | None) -> None:
        """End the processes of a fleet."""
        if fleet is None:
            return
        with self._lock:
            self._fleets = [each for each in self._fleets if each is not fleet]
            replicas, fleet.replicas = fleet.replicas, []
        self._stop(replicas)

    def stop(self, replica: Child) -> None:
        """End one process."""
        self._stop([replica])

    def _stop(self, replicas: list[Child]) -> None:
        for each in replicas:
            each.stop()
            with self._lock:
                self._live.discard(each)

    def close(self) -> None:
        """End every process, and start no other."""
        with self._lock:
            self._closed = True
            live = list(self._live)
        self._stop(live)

    def keep(self) -> None:
        """Go round until the simulator stops: a replica that ended is started again."""
        while not self.world.stopping.wait(_ROUND_S):
            with self._lock:
                fleets = list(self._fleets)
            for fleet in fleets:
                for replica in list(fleet.replicas):
                    if replica.ended and time.monotonic() >= fleet.again_s:
                        fleet.again_s = time.monotonic() + _PAUSE_S
                        self._restart(fleet, replica)

    def _restart(self, fleet: Fleet, old: Child) -> None:
        self._stop([old])
        try:
            fresh = self._started(fleet)
        except OSError:
            _log.exception("a replica could not be started again")
            return
        with self._lock:
            kept = old in fleet.replicas
            fleet.replicas = [fresh if each is old else each for each in fleet.replicas]
        if not kept:
            self._stop([fresh])
