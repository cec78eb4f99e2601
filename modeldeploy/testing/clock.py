"""Time for the suite: virtual, with requests flowing while it passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from modeldeploy.engine.drivers import Clock

_LEAST_S = 1e-6


@attrs.define
class VirtualClock:
    """Time that passes only when asked to: an hour-long canary takes milliseconds."""

    at: float = 1_000_000_000.0
    slept: float = 0.0

    def now(self) -> float:
        """Give the virtual seconds since the epoch."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.at += seconds
        self.slept += seconds


@attrs.define
class FlowingClock(VirtualClock):
    """A virtual clock; ``flow(seconds)`` is called when time passes, to let that much traffic reach the provider."""

    flow: Callable[[float], None] | None = None

    def sleep(self, seconds: float) -> None:
        """Let traffic flow, then move the clock."""
        if self.flow is not None:
            self.flow(seconds)
        # A float of 1e9 seconds does not see steps below 1e-7: such a sleep would let no time pass, for ever.
        VirtualClock.sleep(self, max(seconds, _LEAST_S))


@attrs.define
class TickingClock:
    """The time of another clock; while somebody sleeps by it, ``tick()`` is called at every multiple of ``every`` seconds.

    The ticks stand at the same moments however the sleeps are cut, so what happens at them does not depend on who sleeps.
    """

    inner: Clock
    every: float
    tick: Callable[[], None]
    last: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.last = self._whole()

    def now(self) -> float:
        """Give the seconds since the epoch."""
        return self.inner.now()

    def sleep(self, seconds: float) -> None:
        """Sleep from tick to tick."""
        until = self.now() + seconds
        self.last = max(self.last, self._whole())
        while (due := self.every * (self.last + 1)) <= until + _LEAST_S:
            self._rest(due)
            self.tick()
            self.last = max(self.last + 1, self._whole())
        self._rest(until)

    def _whole(self) -> int:
        return math.floor((self.inner.now() + _LEAST_S) / self.every)

    def _rest(self, until: float) -> None:
        left = until - self.inner.now()
        if left > 0:
            self.inner.sleep(left)
