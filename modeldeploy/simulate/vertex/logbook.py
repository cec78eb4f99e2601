"""What containers print, as Cloud Logging keeps it."""

from __future__ import annotations

import itertools
import threading
from collections import deque

import attrs

from modeldeploy.simulate.clock import Clock

_KEPT = 20_000


@attrs.frozen
class Line:
    """One line that a container printed."""

    number: int
    at: float
    endpoint: str
    deployed: str
    text: str
    job: str = ""
    """The batch prediction job that it belongs to, instead of an endpoint."""


@attrs.define(eq=False)
class Logbook:
    """The latest lines of all containers, in memory."""

    clock: Clock
    _lines: deque[Line] = attrs.field(factory=lambda: deque(maxlen=_KEPT))
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def write(self, endpoint: str, deployed: str, text: str, *, job: str = "") -> None:
        """Add a line."""
        with self._lock:
            self._lines.append(Line(next(self._numbers), self.clock.now(), endpoint, deployed, text, job))

    def lines(self) -> list[Line]:
        """Give all lines that there still are, the first first."""
        with self._lock:
            return list(self._lines)
