"""A driver that kills itself: ``child.py what number before|after endpoint version [gated]``.

``what`` is the start of an effect's name: what a call is for, "save" and the stage, "emit" and the event, "sleep".
"""

from __future__ import annotations

import os
import signal
import sys

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.engine import drivers
from modeldeploy.engine.effects import Call, Emit, Save

WHAT, NUMBER, WHEN, NAME, VERSION = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]
PLAIN = RolloutPolicy.canary((10, 50), soak=0.1, interval=0.05)
GATED = RolloutPolicy.canary((10, 50), soak=0.1, interval=0.05, gates=["error_rate <= 50%"], min_sample=5)
met = 0
perform = drivers.World.perform


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def name_of(effect):
    if isinstance(effect, Call):
        return effect.what
    if isinstance(effect, Save):
        return f"save {effect.cursor['stage']}"
    return f"emit {effect.name.value}" if isinstance(effect, Emit) else type(effect).__name__.lower()


def perform_or_die(world, effect):
    global met  # noqa: PLW0603 - the one counter of this script
    here = name_of(effect).startswith(WHAT)
    met += here
    if here and met == NUMBER and WHEN == "before":
        die()
    answer = perform(world, effect)
    if here and met == NUMBER:
        die()
    return answer


if __name__ == "__main__":
    drivers.World.perform = perform_or_die
    Endpoint.get(NAME).rollout(Model.get(NAME, VERSION), GATED if sys.argv[6:] else PLAIN)
