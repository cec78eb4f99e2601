"""What goes wrong on demand; every switch may be turned while the simulator runs."""

from __future__ import annotations

import threading

import attrs


@attrs.define(eq=False)
class Faults:
    """Switches of bad days. Durations are in seconds of the service, which pass ``speed`` times as fast here.

    Operations are called as the service calls them: ``OnlineEndpoints_CreateOrUpdate``, ``OnlineDeployments_Delete``,
    ``ModelVersions_CreateOrUpdate``, ``BatchEndpoints_Invoke`` and so on; ``OnlineEndpoints_Score`` is a call of a scoring host.
    """

    throttle_every: int = 0
    """Every n-th request of the control plane is answered with 429 ``TooManyRequests`` and ``Retry-After``; 0 for none."""
    fail_every: int = 0
    """Every n-th request of the control plane is answered with 500 ``InternalServerError``; 0 for none."""
    throttle_scoring_every: int = 0
    """Every n-th call of an online endpoint is answered with 429; 0 for none."""
    conflict: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of an operation are answered with 409 ``Conflict``, by the operation's name."""
    refuse: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of an operation are answered with 403 ``AuthorizationFailed``."""
    drop_before: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of an operation are cut off before they are processed."""
    drop_after: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of an operation are processed, and their answers lost."""
    broken: dict[str, int] = attrs.field(factory=dict)
    """How many of the next long-running operations of a name end as Failed with ``InternalServerError``, told with status 200."""
    canceled: dict[str, int] = attrs.field(factory=dict)
    """How many of the next long-running operations of a name end as Canceled with ``OperationCanceled``."""
    not_ready: bool = False
    """No container becomes ready: the deployment's operation fails with ``ResourceNotReady``."""
    nameless: bool = False
    """Failed operations carry no code: it stands before the message instead."""
    image_build: bool = False
    """No environment can be built: the deployment's operation fails with ``ImageBuildFailure``."""
    capacity: bool = False
    """The region has no machine to give: the deployment's operation fails with ``OutOfCapacity``."""
    quota: dict[str, int] = attrs.field(factory=dict)
    """How many cores of an instance type the subscription has, as a deployment that needs more is told; no limit otherwise."""
    stale_s: float = 0.0
    """How long reading an endpoint or a deployment goes on telling what was before a change."""
    settling_s: float = 0.0
    """How long deployments are refused after their endpoint has reported that it succeeded."""
    held_s: float = 0.0
    """How long the name of a deleted endpoint cannot be taken again."""
    _calls: int = attrs.field(default=0, init=False)
    _scores: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def count(self) -> tuple[bool, bool]:
        """Count a request of the control plane, and say whether it is throttled, and whether it fails."""
        with self._lock:
            self._calls += 1
            return _nth(self._calls, self.throttle_every), _nth(self._calls, self.fail_every)

    def throttles_score(self) -> bool:
        """Count a call of an endpoint, and say whether it is one too many."""
        with self._lock:
            self._scores += 1
            return _nth(self._scores, self.throttle_scoring_every)

    def take(self, left: dict[str, int], operation: str) -> bool:
        """Say whether one of the switches by names is on for an operation, and count it down."""
        with self._lock:
            count = left.get(operation, 0)
            if count > 0:
                left[operation] = count - 1
            return count > 0


def _nth(count: int, every: int) -> bool:
    return every > 0 and count % every == 0
