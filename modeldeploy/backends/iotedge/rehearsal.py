"""The backend on a simulated hub in this process, for rehearsals without an account."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeldeploy.backends.iotedge.backend import IoTEdge
from modeldeploy.backends.iotedge.pace import Pace

if TYPE_CHECKING:
    from modeldeploy.simulate.iothub import Simulator

SPEED = 600.0
"""Ten minutes of the service in a second: devices take minutes."""
IMAGE = "registry.example/modeldeploy-server:{version}"
_shared: dict[Path, Rehearsal] = {}
_lock = threading.Lock()


class Rehearsal(IoTEdge):
    """IoT Hub on this machine: what is sent is checked against the published schema, and simulated devices follow it."""

    def __init__(self, simulator: Simulator, *, image: str = IMAGE, **options: Any) -> None:
        super().__init__(
            connection_string=simulator.access.connection_string,
            base_url=simulator.url,
            image=image,
            pace=Pace(simulator.speed),
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

    def shutdown(self) -> None:
        """End all of it, as ``modeldeploy stop`` asks; whoever names the backend next begins with an empty hub."""
        with _lock:
            for home in [home for home, made in _shared.items() if made is self]:
                del _shared[home]
        self.close()


def start(
    *,
    speed: float = SPEED,
    image: str = IMAGE,
    home: Path | str | None = None,  # noqa: ARG001 - every rehearsal takes it; this one keeps nothing there
    layered: bool = False,
    devices: str = "tags.fleet = '{target}'",
    **options: Any,
) -> Rehearsal:
    """Start a simulator and give a backend on it; ``options`` are the simulator's."""
    from modeldeploy.simulate.iothub import Simulator

    simulator = Simulator(speed=speed, **options).start()
    try:
        return Rehearsal(simulator, image=image, layered=layered, devices=devices)
    except BaseException:
        simulator.stop()
        raise


def shared(home: Path) -> Rehearsal:
    """Give the one rehearsal of this process for a state directory, as whoever names the backend means it."""
    with _lock:
        if home not in _shared:
            _shared[home] = start(home=home)
        return _shared[home]
