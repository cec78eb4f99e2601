"""A driver that kills itself: ``child.py what number before|after endpoint version``; ``what`` is the start of an effect's name."""

from __future__ import annotations

import os
import signal
import sys

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.engine import drivers
from modeldeploy.engine.effects import Call

WHAT, NUMBER, WHEN, NAME, VERSION = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
POLICY = RolloutPolicy.canary((10, 50), soak=0.1, interval=0.05)
met = 0
perform = drivers.World.perform


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def perform_or_die(world, effect):
    global met  # noqa: PLW0603 - the one counter of this script
    name = effect.what if isinstance(effect, Call) else type(effect).__name__.lower()
    here = name.startswith(WHAT)
    met += here
    if here and met == NUMBER and WHEN == "before":
        die()
    answer = perform(world, effect)
    if here and met == NUMBER:
        die()
    return answer


if __name__ == "__main__":
    drivers.World.perform = perform_or_die
    Endpoint.get(NAME).rollout(Model.get(NAME, VERSION), POLICY)
