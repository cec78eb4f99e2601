"""Time for the suite: virtual, with requests flowing while it passes."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from modeldeploy.engine.drivers import VirtualClock

__all__ = ["FlowingClock", "VirtualClock"]


_LEAST_S = 1e-6


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
