"""A batch prediction job as the simulator keeps it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.simulate.processes import Child
from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.errors import ServiceError
from modeldeploy.simulate.vertex.replicas import Plan
from modeldeploy.simulate.vertex.world import World

_MOST_FAILURES = 20
SUCCEEDED, PARTIALLY, FAILED, CANCELLED = "SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED"
ENDED = frozenset({SUCCEEDED, PARTIALLY, FAILED, CANCELLED})


@attrs.define(eq=False)
class Job:
    """One job: the service's message, what its processes are made of, and where it has come to."""

    message: Any
    plan: Plan
    world: World
    state: str = "PENDING"
    stop: threading.Event = attrs.field(factory=threading.Event)
    """Set when somebody cancels the job, or the simulator ends."""

    _workers: dict[Child, Callable[[Child], None]] = attrs.field(factory=dict)

    def hire(self, worker: Child, end: Callable[[Child], None]) -> None:
        """Know a process that works on it, and how it is ended."""
        with self.world.lock:
            self._workers[worker] = end

    def release(self, worker: Child) -> None:
        """End a process that works on it; one that has been ended already is left alone."""
        with self.world.lock:
            end = self._workers.pop(worker, None)
        if end is not None:
            end(worker)

    def end_workers(self) -> None:
        """End all processes that work on it."""
        for worker in list(self._workers):
            self.release(worker)

    @property
    def name(self) -> str:
        """Its name as a resource."""
        return str(self.message.name)

    @property
    def id(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self.state in ENDED

    def become(self, state: str, error: ServiceError | None = None) -> None:
        """Change its state, and tell when and why; one that is over stays as it is."""
        with self.world.lock:
            if self.over or (state == "RUNNING" and self.stop.is_set()):
                return
            now = self.world.now()
            self.state, self.message.state = state, f"JOB_STATE_{state}"
            self.message.update_time = now
            if state == "RUNNING":
                self.message.start_time = now
            if state in ENDED:
                self.message.end_time = now
            if error is not None:
                self.message.error = error.status()

    def fail_partly(self, error: ServiceError) -> None:
        """Tell that something was left out; twenty times at most."""
        with self.world.lock:
            if len(self.message.partial_failures) < _MOST_FAILURES:
                self.message.partial_failures.append(error.status())

    def count(self, successful: int, failed: int, incomplete: int) -> None:
        """Tell how many instances were predicted, failed, and not tried."""
        kind = proto.v1().CompletionStats
        with self.world.lock:
            self.message.completion_stats = kind(
                successful_count=successful, failed_count=failed, incomplete_count=incomplete
            )
