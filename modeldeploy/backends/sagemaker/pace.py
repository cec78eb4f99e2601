"""How long things take at the service, and how often looking is useful; a rehearsal runs through the same times faster."""

from __future__ import annotations

import attrs

_LEAST_S = 0.03
"""To look more often than this would only take the time of what is looked at, which a rehearsal runs on the same machine."""


@attrs.frozen
class Pace:
    """Durations in seconds of this machine; ``speed`` says how many of the service's pass in one of them."""

    speed: float = 1.0

    @property
    def grace(self) -> float:
        """How long after a request DescribeEndpoint may still show what was before."""
        return 60.0 / self.speed

    @property
    def slot(self) -> float:
        """Length of the slots in which CloudWatch keeps the metrics of endpoints; it is not asked for less than a second."""
        return max(1.0, 60.0 / self.speed)

    @property
    def settling(self) -> float:
        """How long after its end a slot may still grow: what was measured reaches CloudWatch a minute or two later."""
        return max(1.0, 120.0 / self.speed)

    @property
    def patience(self) -> float:
        """How long an endpoint may be in one state before that is told: an hour without instances looks like any other."""
        return 900.0 / self.speed

    def poll(self, age: float) -> float:
        """Say when to look again at work that was begun ``age`` seconds ago: every 5 s at first, every 30 s later."""
        return max(_LEAST_S, min(30.0 / self.speed, max(5.0 / self.speed, age / 10)))
