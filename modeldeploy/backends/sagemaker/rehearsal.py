"""The backend on a simulator in this process, for rehearsals without an account."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeldeploy.backends.sagemaker.backend import SageMaker
from modeldeploy.backends.sagemaker.pace import Pace

if TYPE_CHECKING:
    from modeldeploy.backends.sagemaker.guard import ServerGuard
    from modeldeploy.simulate.sagemaker import Simulator

SPEED = 60.0
"""A minute of the service in a second: its metrics are then kept by the second, which is the finest period that CloudWatch is asked by."""
IMAGE = "modeldeploy/server"
"""The simulator runs this library's own model server for it."""
_shared: dict[Path, Rehearsal] = {}
_lock = threading.Lock()


class Rehearsal(SageMaker):
    """SageMaker on this machine: what is sent is checked by the service's own model, and the containers are real processes."""

    def __init__(self, simulator: Simulator, *, image: str = IMAGE, **options: Any) -> None:
        super().__init__(
            region=simulator.region,
            role=simulator.role,
            bucket=simulator.bucket,
            session=simulator.session(),
            endpoint_url=simulator.url,
            image=image,
            pace=Pace(simulator.speed),
            # Nothing of it outlives this process, so neither does the journal.
            durable=False,
            **options,
        )
        self.simulator = simulator
        """Its ``faults`` may be switched at any time."""

    def close(self) -> None:
        """Close connections and end the simulator with its containers."""
        super().close()
        self.simulator.stop()

    def shutdown(self) -> None:
        """End all of it, as ``modeldeploy stop`` asks; whoever names the backend next begins with an empty account."""
        with _lock:
            for home in [home for home, made in _shared.items() if made is self]:
                del _shared[home]
        self.close()


def start(
    *,
    speed: float = SPEED,
    image: str = IMAGE,
    home: Path | str | None = None,
    tags: Mapping[str, str] | None = None,
    guard: ServerGuard | None = None,
    **options: Any,
) -> Rehearsal:
    """Start a simulator and give a backend on it; ``options`` are the simulator's."""
    from modeldeploy.simulate.sagemaker import Simulator

    simulator = Simulator(speed=speed, **options).start()
    try:
        return Rehearsal(simulator, image=image, home=home, tags=tags, guard=guard)
    except BaseException:
        simulator.stop()
        raise


def shared(home: Path) -> Rehearsal:
    """Give the one rehearsal of this process for a state directory, as whoever names the backend means it."""
    with _lock:
        if home not in _shared:
            _shared[home] = start(home=home)
        return _shared[home]
