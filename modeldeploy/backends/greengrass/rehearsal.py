"""The backend on a simulated account in this process, for rehearsals without one."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeldeploy.backends.greengrass.backend import Greengrass
from modeldeploy.backends.greengrass.pace import Pace

if TYPE_CHECKING:
    from modeldeploy.backends.greengrass.recipe import Limits
    from modeldeploy.simulate.greengrass import Simulator

SPEED = 600.0
"""Ten minutes of the service in a second: devices take minutes."""
_shared: dict[Path, Rehearsal] = {}
_lock = threading.Lock()


class Rehearsal(Greengrass):
    """Greengrass on this machine: what is sent is checked by the service's own model, and simulated devices follow it."""

    def __init__(
        self, simulator: Simulator, *, home: Path | str | None = None, pace: Pace | None = None, **options: Any
    ) -> None:
        self._own = None if home is not None else tempfile.mkdtemp(prefix="modeldeploy-")
        super().__init__(
            region=simulator.region,
            bucket=simulator.bucket,
            session=simulator.session(),
            endpoint_url=simulator.url,
            pace=pace or Pace(simulator.speed),
            home=home or self._own,
            # Nothing of it outlives this process, so neither does the journal.
            durable=False,
            **options,
        )
        self.simulator = simulator
        """Its ``faults`` may be switched at any time; ``add_device`` registers devices."""

    def close(self) -> None:
        """Close connections and end the simulator."""
        super().close()
        self.simulator.stop()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    def shutdown(self) -> None:
        """End all of it, as ``modeldeploy stop`` asks; whoever names the backend next begins with an empty account."""
        with _lock:
            for home in [home for home, made in _shared.items() if made is self]:
                del _shared[home]
        self.close()


def start(
    *,
    speed: float = SPEED,
    home: Path | str | None = None,
    thing_group: str = "{target}",
    limits: Limits | None = None,
    **options: Any,
) -> Rehearsal:
    """Start a simulator and give a backend on it; ``options`` are the simulator's."""
    from modeldeploy.simulate.greengrass import Simulator

    simulator = Simulator(speed=speed, **options).start()
    try:
        return Rehearsal(simulator, home=home, thing_group=thing_group, limits=limits)
    except BaseException:
        simulator.stop()
        raise


def shared(home: Path) -> Rehearsal:
    """Give the one rehearsal of this process for a state directory, as whoever names the backend means it."""
    with _lock:
        if home not in _shared:
            _shared[home] = start(home=home)
        return _shared[home]
