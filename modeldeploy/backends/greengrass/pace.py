"""How long things take at the service, and how often looking is useful; a rehearsal runs through the same times faster."""

from __future__ import annotations

import attrs

_LEAST_S = 0.03


@attrs.frozen
class Pace:
    """Durations in seconds of this machine; ``speed`` says how many of the service's pass in one of them."""

    speed: float = 1.0
    silent_s: float = 93_600.0
    """Seconds of the service: the nucleus tells its state once a day at least, and two hours are given to it beside."""

    @property
    def offline(self) -> float:
        """How long a deployment may wait for a device before the device counts as offline."""
        return 300.0 / self.speed

    @property
    def silent(self) -> float:
        """After how long without a word a device counts as offline though nothing waits for it."""
        return self.silent_s / self.speed

    @property
    def settle(self) -> float:
        """How long a change waits at most for devices that can be reached; those that have not answered are left to the gates."""
        return 900.0 / self.speed

    def poll(self) -> float:
        """Say when to look again."""
        return max(_LEAST_S, 15.0 / self.speed)
