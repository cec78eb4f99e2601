"""What goes wrong on demand; every switch may be turned while the simulator runs."""

from __future__ import annotations

import threading

import attrs


@attrs.define(eq=False)
class Faults:
    """Switches of bad days.

    Operations are called as the service calls them: ``Configuration_CreateOrUpdate``, ``Configuration_Delete``, ``Configuration_Get``,
    ``Configuration_GetConfigurations``, ``Configuration_TestQueries``, ``Configuration_ApplyOnEdgeDevice``, ``Devices_Query``,
    ``Devices_UpdateTwin``, ``Modules_GetTwin``.
    """

    throttle_every: int = 0
    """Every n-th request is answered with 429 ``ThrottlingException`` and ``Retry-After``; 0 for none."""
    fail_every: int = 0
    """Every n-th request is answered with 500 ``ServerError``; 0 for none."""
    drop_before: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of an operation are cut off before they are processed."""
    drop_after: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of an operation are processed, and their answers lost."""
    broken: set[str] = attrs.field(factory=set)
    """Versions of modules (revisions) that no device can run: their container ends at once, again and again."""
    failing: dict[str, set[str]] = attrs.field(factory=dict)
    """The same on single devices: versions by the device's id."""
    missing_images: set[str] = attrs.field(factory=set)
    """Images that no device can pull."""
    _calls: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def count(self) -> tuple[bool, bool]:
        """Count a request, and say whether it is throttled, and whether it fails."""
        with self._lock:
            self._calls += 1
            return _nth(self._calls, self.throttle_every), _nth(self._calls, self.fail_every)

    def take(self, left: dict[str, int], operation: str) -> bool:
        """Say whether one of the switches by names is on for an operation, and count it down."""
        with self._lock:
            count = left.get(operation, 0)
            if count > 0:
                left[operation] = count - 1
            return count > 0

    def ends(self, device: str, version: str) -> bool:
        """Say whether a module of this version ends by itself on a device."""
        return version in self.broken or version in self.failing.get(device, set())


def _nth(count: int, every: int) -> bool:
    return every > 0 and count % every == 0
