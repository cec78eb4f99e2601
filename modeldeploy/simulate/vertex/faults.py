"""What goes wrong on demand; every switch may be turned while the simulator runs."""

from __future__ import annotations

import threading

import attrs


@attrs.define(eq=False)
class Faults:
    """Switches of bad days. Methods are called as the service calls them: ``UploadModel``, ``DeployModel``, ``GetOperation``, ``RawPredict``."""

    fail_every: int = 0
    """Every n-th request is answered with UNAVAILABLE before it is processed, predictions excepted; 0 for none."""
    throttle_every: int = 0
    """Every n-th request is answered with RESOURCE_EXHAUSTED, predictions excepted; 0 for none."""
    fail_predictions_every: int = 0
    """Every n-th prediction is answered with UNAVAILABLE; 0 for none."""
    error: dict[str, list[str]] = attrs.field(factory=dict)
    """With which gRPC codes the next requests of a method are answered, before they are processed: ``{"DeployModel": ["ABORTED"]}``."""
    lose: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of a method are processed, and their answers lost: the caller is told UNAVAILABLE."""
    hang: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of a method are never answered nor processed, until the caller gives up."""
    race: dict[str, int] = attrs.field(factory=dict)
    """Before how many of the next requests of ``UpdateEndpoint`` somebody else changes the endpoint, so that its etag is stale."""
    broken: dict[str, list[str]] = attrs.field(factory=dict)
    """With which codes the next long-running operations of a method end, without having done anything: ``{"DeployModel": ["INTERNAL"]}``."""
    stuck: dict[str, int] = attrs.field(factory=dict)
    """How many of the next long-running operations of a method never end by themselves."""
    unhealthy: int = 0
    """How many of the next deployments have a container that never becomes well."""
    stockout: int = 0
    """How many of the next deployments find no machine: their operations end with RESOURCE_EXHAUSTED."""
    broken_jobs: int = 0
    """How many of the next batch prediction jobs end as FAILED."""
    drop_rows_every: int = 0
    """Every n-th instance of a batch prediction job fails as if the container had not answered; 0 for none."""
    quota: dict[str, int] = attrs.field(factory=dict)
    """Limits by the quota's name; CPUs of serving, and requests in a minute of the service."""
    fail_storage_every: int = 0
    """Every n-th request of Cloud Storage is answered with 503; 0 for none."""
    fail_observing_every: int = 0
    """Every n-th request of Cloud Logging or Cloud Monitoring is answered with 503; 0 for none."""
    lose_storage: dict[str, int] = attrs.field(factory=dict)
    """How many of the next requests of Cloud Storage are processed and their answers lost, by HTTP method."""
    _counts: dict[str, int] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def nth(self, switch: str) -> bool:
        """Count a request against a switch that is on every so many times, and say whether it is its turn."""
        every = int(getattr(self, switch))
        with self._lock:
            self._counts[switch] = self._counts.get(switch, 0) + 1
            return every > 0 and self._counts[switch] % every == 0

    def take(self, left: dict[str, int], name: str) -> bool:
        """Say whether one of the switches by names is on, and count it down."""
        with self._lock:
            count = left.get(name, 0)
            if count > 0:
                left[name] = count - 1
            return count > 0

    def next(self, left: dict[str, list[str]], name: str) -> str:
        """Take the next code that was asked for; empty when there is none."""
        with self._lock:
            codes = left.get(name, [])
            return codes.pop(0) if codes else ""

    def once(self, switch: str) -> bool:
        """Say whether a switch that counts down is on."""
        with self._lock:
            count = int(getattr(self, switch))
            if count > 0:
                setattr(self, switch, count - 1)
            return count > 0
