"""Instances of a deployment: real processes of this machine, built from the uploaded bytes and asked over HTTP."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import attrs

from modeldeploy.simulate.processes import Child

_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
_OK = 200
_PAUSE_S = 1.0
_KEPT = 20_000


@attrs.frozen
class Paths:
    """Where a container says that it is alive, that it is ready, and where it scores."""

    liveness: str = "/"
    readiness: str = "/"
    scoring: str = "/score"


class Log:
    """The latest lines of what a deployment's containers printed, in memory."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Add a line."""
        with self._lock:
            self._lines.append(line)

    def tail(self, count: int) -> list[str]:
        """Give the latest lines."""
        with self._lock:
            return list(self._lines)[-count:] if count > 0 else []


@attrs.define(eq=False, kw_only=True)
class Fleet:
    """What answers for a deployment at a time."""

    paths: Paths
    slots: threading.Semaphore
    """How many requests are taken at a time."""
    timeout_s: float
    """How long a container may take to answer, in seconds of this machine."""
    start: Callable[[], Child]
    """Starts one more instance."""
    liveness_s: float
    """How often each is asked whether it is alive, in seconds of this machine."""
    most_failures: int
    """How often in a row it may say no."""
    again_s: float = 0.0
    """From when on an instance may be started again: not at once, and not all the time."""
    instances: list[Child] = attrs.field(factory=list)
    _turn: itertools.count[int] = attrs.field(factory=itertools.count)
    _asked: dict[Child, float] = attrs.field(factory=dict)
    _failed: Counter[Child] = attrs.field(factory=Counter)

    def next(self) -> Child | None:
        """Give the instance whose turn it is."""
        instances = self.instances
        return instances[next(self._turn) % len(instances)] if instances else None

    def is_dead(self, instance: Child) -> bool:
        """Say whether an instance is to be started again; asks it, when it is time to."""
        now = time.monotonic()
        if now < self.again_s or (not instance.ended and now - self._asked.get(instance, 0.0) < self.liveness_s):
            return False
        self._asked[instance] = now
        well = not instance.ended and instance.probe(self.paths.liveness) == _OK
        self._failed[instance] = 0 if well else self._failed[instance] + 1
        if instance.ended or self._failed[instance] >= self.most_failures:
            del self._asked[instance], self._failed[instance]
            self.again_s = now + _PAUSE_S
            return True
        return False
