"""How long things take at the service, and how often looking is useful; a rehearsal runs through the same times faster."""

from __future__ import annotations

import attrs


@attrs.frozen
class Pace:
    """Durations in seconds of this machine; ``speed`` says how many of the service's pass in one of them."""

    speed: float = 1.0

    @property
    def grace(self) -> float:
        """How long after a request a resource may still show what was before; a look itself takes time, however fast the service is."""
        return max(0.5, 60.0 / self.speed)

    @property
    def slot(self) -> float:
        """Length of the slots that Cloud Monitoring keeps metrics in."""
        return max(1.0, 60.0 / self.speed)

    @property
    def settling(self) -> float:
        """How long after its end a slot may still grow: metrics come up to four minutes late."""
        return 240.0 / self.speed

    @property
    def patience(self) -> float:
        """How long a deployment may be made: the service itself gives up after two hours at the latest."""
        return 7_500.0 / self.speed

    def poll(self, age: float) -> float:
        """Say when to look again at work that was begun ``age`` seconds ago: every 3 s at first, every 20 s later."""
        return min(20.0 / self.speed, max(3.0 / self.speed, age / 10))
