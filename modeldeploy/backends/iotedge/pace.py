"""How long things take at the service, and how often looking is useful; a rehearsal runs through the same times faster."""

from __future__ import annotations

import attrs

_LEAST_S = 0.03


@attrs.frozen
class Pace:
    """Durations in seconds of this machine; ``speed`` says how many of the service's pass in one of them."""

    speed: float = 1.0

    @property
    def offline(self) -> float:
        """How long a device may be disconnected before it counts as offline."""
        return 300.0 / self.speed

    @property
    def settle(self) -> float:
        """How long a change waits at most for devices that can be reached; those that have not answered are left to the gates."""
        return 900.0 / self.speed

    def poll(self) -> float:
        """Say when to look again: target conditions are evaluated by the minute, images take longer."""
        return max(_LEAST_S, 15.0 / self.speed)
