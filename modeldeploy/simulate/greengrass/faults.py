"""What goes wrong on demand; every switch may be turned while the simulator runs."""

from __future__ import annotations

import threading

import attrs


@attrs.define(eq=False)
class Faults:
    """Switches of bad days. Operations are called as the services call them: ``CreateDeployment``, ``UpdateThingGroup``, ``PutObject``."""

    throttle_every: int = 0
    """Every n-th request to Greengrass or IoT is answered with ``ThrottlingException``; 0 for none."""
    drop_before: dict[str, int] = attrs.field(factory=dict)
    """How many of the next calls of an operation of Greengrass are cut off before they are processed."""
    drop_after: dict[str, int] = attrs.field(factory=dict)
    """How many of the next calls of an operation of Greengrass are processed, and their answers lost."""
    broken: set[str] = attrs.field(factory=set)
    """Revisions whose self-test fails on every device."""
    failing: dict[str, set[str]] = attrs.field(factory=dict)
    """The same on single devices: revisions by the device's name."""
    crashing: set[str] = attrs.field(factory=set)
    """Revisions that pass their self-test and break afterwards, on every device that runs them."""
    refused: set[str] = attrs.field(factory=set)
    """Revisions whose component the service finds not deployable."""
    _calls: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def throttled(self) -> bool:
        """Count a request, and say whether it is one too many."""
        with self._lock:
            self._calls += 1
            return self.throttle_every > 0 and self._calls % self.throttle_every == 0

    def take(self, left: dict[str, int], operation: str) -> bool:
        """Say whether one of the switches by names is on for an operation, and count it down."""
        with self._lock:
            count = left.get(operation, 0)
            if count > 0:
                left[operation] = count - 1
            return count > 0

    def fails(self, device: str, revision: str) -> bool:
        """Say whether a revision fails its self-test on a device."""
        return revision in self.broken or revision in self.failing.get(device, set())
