"""How many workers a job takes: another one only where it brings more than it costs.

A worker imports the model's libraries before it scores its first row; a short job is done by then. So one begins, and the time that it took
to be ready is what another would take.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PAYS = 2.0
"""The least time left, in starts of a worker, for which another one is worth its start."""
LEAST = 0.5
"""Seconds that a start is taken to last at the least."""


class Growth:
    """Decides when another worker pays, up to ``most`` seats in all; sizes are in the unit of the plan's parts."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._seats = 0
        self._began = clock()
        self._ready: float | None = None

    def started(self, seats: int) -> None:
        """Count a worker that was started."""
        self._seats += seats

    def ready(self) -> None:
        """Note that a worker is ready; the first tells how long a start takes."""
        if self._ready is None:
            self._ready = self._clock()

    def pays(self, *, waiting: int, taken: int) -> bool:
        """Whether to start another worker now: ``waiting`` is the work not given out, ``taken`` what was since the start.

        What is in hand counts as done, so the time left is never thought longer than it is; a slow part makes it grow while it runs.
        """
        if self._ready is None or self._seats >= self._most or not taken:
            return False
        left = waiting * (self._clock() - self._ready) / taken
        return left > PAYS * max(self._ready - self._began, LEAST)
