"""What readers are told for a while after a change: the thing as it was before."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.world import World


@attrs.define(eq=False)
class Memory:
    """The latest states before changes, by the things' names."""

    world: World
    _before: dict[tuple[str, ...], tuple[float, Json | None]] = attrs.field(factory=dict)

    def keep(self, state: Json | None, *name: str) -> None:
        """Keep what a thing is now, for it is about to change; None when it is not there."""
        stale = self.world.faults.stale_s
        if stale:
            self._before[name] = (self.world.clock.after(stale), state)

    def old(self, *name: str) -> tuple[bool, Json | None]:
        """Say whether the state before is still told, and which it is."""
        until, state = self._before.get(name, (0.0, None))
        return until > self.world.clock.now(), state
