"""What goes wrong on demand; every switch may be turned while the simulator runs."""

from __future__ import annotations

import threading

import attrs

_RUNTIME = frozenset({"InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream"})


@attrs.define(eq=False)
class Faults:
    """Switches of bad days. Durations are in seconds of the service, which pass ``speed`` times as fast here."""

    throttle_every: int = 0
    """Every n-th call of the control plane is answered with ``ThrottlingException: Rate exceeded``; 0 for none."""
    throttle_invocations_every: int = 0
    """The same for calls of the runtime."""
    drop_before: dict[str, int] = attrs.field(factory=dict)
    """How many of the next calls of an operation are cut off before they are processed, by the operation's name."""
    drop_after: dict[str, int] = attrs.field(factory=dict)
    """How many of the next calls of an operation are processed, and their answers lost."""
    stale_s: float = 0.0
    """How long DescribeEndpoint goes on telling what was before a change."""
    lag_s: float = 0.0
    """How long a new model, configuration or endpoint is not found by those who look for it."""
    capacity: bool = False
    """No instance can be had."""
    ping: bool = False
    """No container passes its health check."""
    silent_rollback: bool = False
    """An update is rolled back, and no reason is given."""
    rollback_fails: bool = False
    """A rollback ends in UpdateRollbackFailed."""
    _calls: int = attrs.field(default=0, init=False)
    _invocations: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def throttled(self, operation: str) -> bool:
        """Count a call, and say whether it is one too many."""
        with self._lock:
            if operation in _RUNTIME:
                self._invocations += 1
                return _nth(self._invocations, self.throttle_invocations_every)
            self._calls += 1
            return _nth(self._calls, self.throttle_every)

    def drops_before(self, operation: str) -> bool:
        """Say whether this call is to be cut off unprocessed."""
        return self._take(self.drop_before, operation)

    def drops_after(self, operation: str) -> bool:
        """Say whether the answer of this call is to be lost."""
        return self._take(self.drop_after, operation)

    def _take(self, left: dict[str, int], operation: str) -> bool:
        with self._lock:
            count = left.get(operation, 0)
            if count > 0:
                left[operation] = count - 1
            return count > 0


def _nth(count: int, every: int) -> bool:
    return every > 0 and count % every == 0
