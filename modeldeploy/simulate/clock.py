"""The service's time: minutes of provisioning pass in a second, and the timestamps are still this machine's."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the simulator asks about time. Durations are in seconds of the service."""

    def now(self) -> float:
        """Tell the time in seconds since the epoch, as callers see it."""
        ...

    def after(self, seconds: float) -> float:
        """Tell what ``now`` will be when that many seconds of the service have passed."""
        ...

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Let seconds of the service pass; True as soon as ``stop`` is set."""
        ...


class ScaledClock:
    """Seconds of the service pass ``speed`` times as fast as this machine's."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def now(self) -> float:
        """Tell the time in seconds since the epoch."""
        return time.time()

    def after(self, seconds: float) -> float:
        """Tell what ``now`` will be when that many seconds of the service have passed."""
        return self.now() + seconds / self.speed

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Let seconds of the service pass; True as soon as ``stop`` is set."""
        return stop.wait(seconds / self.speed)
