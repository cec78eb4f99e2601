"""Time for the suite: virtual, with requests flowing while it passes."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from modeldeploy.engine.drivers import VirtualClock

__all__ = ["FlowingClock", "VirtualClock"]


@attrs.define
class FlowingClock(VirtualClock):
    """A virtual clock; ``flow(seconds)`` is called when time passes, to let that much traffic reach the provider."""

    flow: Callable[[float], None] | None = None

    def sleep(self, seconds: float) -> None:
        """Let traffic flow, then move the clock."""
        if self.flow is not None:
            self.flow(seconds)
        VirtualClock.sleep(self, seconds)
