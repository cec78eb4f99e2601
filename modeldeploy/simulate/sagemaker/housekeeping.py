"""What the service does by itself, again and again: bring logs and metrics to CloudWatch, judge alarms, let idle containers go."""

from __future__ import annotations

import logging

import attrs

from modeldeploy.simulate.sagemaker.alarms import Alarms
from modeldeploy.simulate.sagemaker.capture import Captures
from modeldeploy.simulate.sagemaker.endpoint import Endpoint
from modeldeploy.simulate.sagemaker.fleets import Variant, Yard
from modeldeploy.simulate.sagemaker.logbook import Logbook
from modeldeploy.simulate.sagemaker.world import Shelf, World

_log = logging.getLogger(__name__)
_OFTEN_S = 0.2


@attrs.define(eq=False)
class Housekeeping:
    """One thread from the start of the simulator to its stop."""

    world: World
    logbook: Logbook
    alarms: Alarms
    captures: Captures
    yard: Yard
    endpoints: Shelf[Endpoint]

    def run(self) -> None:
        """Go round until the simulator stops; a round that fails is no reason to end."""
        due = self.world.clock.after(self.world.timings.metrics)
        while not self.world.stopping.wait(_OFTEN_S):
            try:
                self.logbook.flush()
                self.captures.flush()
                self._tend()
                if self.world.clock.now() >= due:
                    due = self.world.clock.after(self.world.timings.metrics)
                    self.alarms.judge()
            except Exception:  # noqa: BLE001 - it is in the log; the next round may go well
                _log.exception("a round of housekeeping failed")

    def _tend(self) -> None:
        """Start again what ended by itself, and let serverless variants go that nobody has asked for long."""
        for endpoint in list(self.endpoints.items.values()):
            for variant in endpoint.fleet.every if endpoint.route.fleets else ():
                self._replace(endpoint, variant)
                if variant.serverless and self._is_idle(variant):
                    self.yard.end_of(variant, variant.containers)

    def _replace(self, endpoint: Endpoint, variant: Variant) -> None:
        dead = [each for each in variant.containers if each.ended]
        if dead:
            self.yard.end_of(variant, dead)
        if dead or not (variant.containers or variant.serverless):
            self.yard.regrow(variant, endpoint.log_group, after_s=self.world.timings.watch)

    def _is_idle(self, variant: Variant) -> bool:
        world = self.world
        idle = world.clock.after(world.timings.idle) - world.clock.now()
        return bool(variant.used) and world.clock.now() - variant.used > idle
