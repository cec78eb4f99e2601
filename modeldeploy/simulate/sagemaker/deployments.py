"""What the service does to an endpoint over time: create, update with every policy, reweigh, roll back, delete."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.simulate.sagemaker import policies
from modeldeploy.simulate.sagemaker.alarms import Alarms
from modeldeploy.simulate.sagemaker.endpoint import (
    DELETING,
    FAILED,
    IN_SERVICE,
    ROLLBACK_FAILED,
    ROLLING_BACK,
    Endpoint,
    Pending,
)
from modeldeploy.simulate.sagemaker.fleets import NO_CAPACITY, Fleet, ProvisionError, Yard
from modeldeploy.simulate.sagemaker.logbook import Logbook
from modeldeploy.simulate.sagemaker.routing import Route
from modeldeploy.simulate.sagemaker.world import Json, Shelf, World

_TIMED_OUT = "The deployment did not complete within MaximumExecutionTimeoutInSeconds."


class RollBackError(Exception):
    """The deployment is to be undone; the text is the FailureReason."""


@attrs.define(eq=False)
class Deployments:
    """Each method is one operation from its start to its end, on a thread of its own."""

    world: World
    yard: Yard
    alarms: Alarms
    logbook: Logbook
    shelf: Shelf[Endpoint]

    def create(self, endpoint: Endpoint) -> None:
        """Bring the first fleet up."""
        try:
            self.world.wait(self.world.timings.create)
            self.yard.raise_fleet(endpoint.fleet, endpoint.log_group, refused=self._refused)
        except ProvisionError as error:
            self._settle(endpoint, FAILED, str(error))
        else:
            endpoint.route = Route([(endpoint.fleet, 1.0)])
            self._settle(endpoint, IN_SERVICE, "")

    def update(self, endpoint: Endpoint, green: Fleet, policy: Json | None) -> None:
        """Bring a new fleet up, move the traffic to it as the policy says, and take the old one down."""
        try:
            self.world.wait(self.world.timings.update)
            self._check_alarms(policy)
            self.yard.raise_fleet(green, endpoint.log_group, refused=self._refused)
            self._spoil()
            self._shift(endpoint, green, policy)
        except (ProvisionError, RollBackError) as error:
            self._roll_back(endpoint, green, str(error))
        else:
            self._finish(endpoint, green, policy)

    def reweigh(self, endpoint: Endpoint, changes: Mapping[str, Json]) -> None:
        """Give variants of a running fleet other weights and other numbers of instances; what fails is rolled back."""
        try:
            self.world.wait(self.world.timings.weights)
            self._spoil()
            self._resize(endpoint, changes)
        except (ProvisionError, RollBackError) as error:
            self._touch(endpoint, ROLLING_BACK)
            self.world.wait(self.world.timings.rollback)
            self._reset_desired(endpoint)
            self._settle(endpoint, IN_SERVICE, str(error))
        else:
            # All at once, and only when all instances are there.
            for variant in endpoint.fleet.variants:
                variant.weight, variant.count = variant.desired_weight, variant.desired_count
            self._settle(endpoint, IN_SERVICE, "")

    def delete(self, endpoint: Endpoint) -> None:
        """Take the endpoint down."""
        self.world.wait(self.world.timings.delete)
        endpoint.route = Route()
        self.yard.stop(endpoint.fleet.every)
        if endpoint.pending is not None:
            self.yard.stop(endpoint.pending.fleet.every)
        with self.world.lock:
            self.shelf.items.pop(endpoint.name.lower(), None)
            self.world.tags.pop(endpoint.arn, None)

    def _refused(self) -> None:
        if self.world.faults.capacity:
            raise ProvisionError(NO_CAPACITY)

    def _spoil(self) -> None:
        if self.world.faults.silent_rollback:
            raise RollBackError

    def _resize(self, endpoint: Endpoint, changes: Mapping[str, Json]) -> None:
        for variant in endpoint.fleet.variants:
            if "DesiredInstanceCount" in changes.get(variant.name, {}):
                self._refused()
                self.yard.grow(variant, endpoint.log_group)

    @staticmethod
    def _reset_desired(endpoint: Endpoint) -> None:
        for variant in endpoint.fleet.variants:
            variant.desired_weight, variant.desired_count = variant.weight, variant.count

    def _shift(self, endpoint: Endpoint, green: Fleet, policy: Json | None) -> None:
        blue, left = endpoint.fleet, policies.patience(policy)
        instances = sum(variant.count for variant in green.variants)
        for step in policies.steps(policy, instances):
            _stage(endpoint, "ActivatingTraffic")
            share = step.percent / 100
            endpoint.route = Route([(green, share), (blue, 1 - share)] if share < 1 else [(green, 1.0)])
            _stage(endpoint, "Baking")
            left -= step.bake_s
            self._bake(step.bake_s, policy)
            if left < 0:
                raise RollBackError(_TIMED_OUT)

    def _bake(self, seconds: float, policy: Json | None) -> None:
        """Let time pass and look at the alarms meanwhile."""
        pause = self.world.timings.watch if policies.alarms(policy) else seconds
        while seconds > 0:
            self.world.wait(min(pause, seconds))
            seconds -= pause
            self._check_alarms(policy)

    def _check_alarms(self, policy: Json | None) -> None:
        ringing = self.alarms.ringing(policies.alarms(policy))
        if ringing:
            names = ", ".join(ringing)
            raise RollBackError(f"One or more alarms of the deployment went into ALARM state: {names}.")

    def _finish(self, endpoint: Endpoint, green: Fleet, policy: Json | None) -> None:
        blue, endpoint.fleet = endpoint.fleet, green
        endpoint.route = Route([(green, 1.0)])
        endpoint.deployment = policy
        self._settle(endpoint, IN_SERVICE, "")
        self.yard.stop(blue.every)

    def _roll_back(self, endpoint: Endpoint, green: Fleet, reason: str) -> None:
        faults = self.world.faults
        self._touch(endpoint, ROLLING_BACK)
        endpoint.route = Route([(endpoint.fleet, 1.0)])
        self.world.wait(self.world.timings.rollback)
        self.yard.stop(green.every)
        if faults.rollback_fails:
            self._settle(endpoint, ROLLBACK_FAILED, reason or "The rollback failed.")
        else:
            self._settle(endpoint, IN_SERVICE, "" if faults.silent_rollback else reason)

    def _settle(self, endpoint: Endpoint, status: str, reason: str) -> None:
        # Whoever sees the new status finds the lines that led to it.
        self.logbook.flush()
        with self.world.lock:
            endpoint.pending, endpoint.reason = None, reason
            self._touch(endpoint, status)

    def _touch(self, endpoint: Endpoint, status: str) -> None:
        if endpoint.status != DELETING:
            endpoint.status = status
        endpoint.modified = self.world.clock.now()


def _stage(endpoint: Endpoint, stage: str) -> None:
    pending: Pending | None = endpoint.pending
    if pending is not None:
        pending.stage = stage
