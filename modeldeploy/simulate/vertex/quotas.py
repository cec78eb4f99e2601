"""How much a project may have: CPUs of serving in its region, and requests in a minute."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from modeldeploy.simulate.vertex.checks import cpus
from modeldeploy.simulate.vertex.errors import ServiceError, exceeded
from modeldeploy.simulate.vertex.world import World

CPUS = "CustomModelServingCPUsPerProjectPerRegion"
SUBMISSIONS = "LongRunningOperationSubmissionsPerMinutePerProjectPerRegion"
REQUESTS = "ResourceManagementRequestsPerMinutePerProjectPerRegion"
PREDICTIONS = "OnlinePredictionRequestsPerMinutePerProjectPerRegion"
# As documented; rehearsals pass minutes in less than a second, so they are reached only where somebody is careless.
PUBLISHED = {SUBMISSIONS: 60, REQUESTS: 600, PREDICTIONS: 30_000}
_MINUTE = 60.0


@attrs.define(eq=False)
class Quotas:
    """What is used of each quota; ``Faults.quota`` has limits other than the published ones."""

    world: World
    _machines: dict[tuple[str, str], int] = attrs.field(factory=dict)
    _seen: dict[str, deque[float]] = attrs.field(factory=dict)

    def take_machines(self, endpoint: str, deployed: str, resources: Any) -> None:
        """Count the CPUs of a deployed model, at the most replicas that it may have; an error when there are too few."""
        wanted = _cpus(resources)
        with self.world.lock:
            others = sum(each for key, each in self._machines.items() if key != (endpoint, deployed))
            limit = self.world.faults.quota.get(CPUS)
            if limit is not None and others + wanted > limit:
                raise exceeded(CPUS)
            self.note_machines(endpoint, deployed, resources)

    def note_machines(self, endpoint: str, deployed: str, resources: Any) -> None:
        """Count the CPUs of what a deployed model has, whatever the limit is."""
        with self.world.lock:
            self._machines[endpoint, deployed] = _cpus(resources)

    def give_back(self, endpoint: str, deployed: str) -> None:
        """Count the machines of a deployed model no longer."""
        with self.world.lock:
            self._machines.pop((endpoint, deployed), None)

    def count(self, quota: str) -> None:
        """Count a request; an error when there were too many in the last minute of the service."""
        limit = self.world.faults.quota.get(quota, PUBLISHED.get(quota, 0))
        now, minute = self.world.clock.now(), _MINUTE / self.world.speed
        with self.world.lock:
            seen = self._seen.setdefault(quota, deque())
            while seen and seen[0] <= now - minute:
                seen.popleft()
            if len(seen) >= limit:
                message = f"Quota exceeded for quota metric '{quota}' and limit '{quota}' of service 'aiplatform.googleapis.com'"
                raise ServiceError("RESOURCE_EXHAUSTED", f"{message} (per minute, {limit}).")
            seen.append(now)


def _cpus(resources: Any) -> int:
    count: int = resources.max_replica_count
    return cpus(resources.machine_spec.machine_type) * count
