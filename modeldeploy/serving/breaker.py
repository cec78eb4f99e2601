"""When workers die again and again: since when, whether anything still succeeds, and which requests are to blame.

A worker's death alone costs nobody an answer, so it is no reason to refuse anything. Three within a minute open the breaker, which says so
and, while nothing succeeds any more, lets nobody wait for the next worker. A body that killed two workers in a row, twice, is refused for a
minute: a client that repeats it would otherwise kill workers for ever.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

CRASHES = 3
WINDOW_S = 60.0
_CONVICTIONS = 2
_REMEMBERED = 1_000


class Breaker:
    """The deaths of one revision's workers within the last minute."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: collections.deque[float] = collections.deque(maxlen=CRASHES)
        self._good = 0
        self._fruitless = 0
        self.convicted: dict[int, list[float]] = {}
        """Hashes of bodies, and when each killed two workers in a row."""

    def crashed(self, good: int = 0, *, busy: bool = False) -> None:
        """Take note of a death: how many good answers there were until then, and whether it left requests unanswered."""
        self._deaths.append(self._clock())
        if good != self._good:
            self._good, self._fruitless = good, 0
        self._fruitless += busy

    @property
    def open(self) -> bool:
        """Whether so many died within the last minute."""
        return len(self._deaths) == CRASHES and self._clock() - self._deaths[0] <= WINDOW_S

    def hopeless(self, good: int) -> bool:
        """Whether it is open, and as many died at work with no good answer between."""
        return self._fruitless >= CRASHES and good == self._good and self.open

    def convict(self, body: bytes) -> None:
        """Take note of a body that killed two workers in a row."""
        if len(self.convicted) >= _REMEMBERED:
            self.convicted.pop(next(iter(self.convicted)))
        now = self._clock()
        before = self.convicted.pop(hash(body), [])
        self.convicted[hash(body)] = [*(each for each in before if now - each <= WINDOW_S), now]

    def refuses(self, body: bytes) -> bool:
        """Whether a body has done so twice, the last time within a minute."""
        deaths = self.convicted.get(hash(body), [])
        if deaths and self._clock() - deaths[-1] > WINDOW_S:
            del self.convicted[hash(body)]
            return False
        return len(deaths) >= _CONVICTIONS
