"""The backend on a simulator in this process, for rehearsals without a project."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from modeldeploy.backends.vertex.backend import Vertex
from modeldeploy.backends.vertex.capabilities import CAPABILITIES
from modeldeploy.backends.vertex.entry import BASE_IMAGE
from modeldeploy.backends.vertex.pace import Pace

if TYPE_CHECKING:
    from modeldeploy.simulate.vertex import Simulator

SPEED = 240.0
"""Four minutes of the service in a second."""
BUCKET = "rehearsal-models"
SERVICES = {
    "model": "ModelService",
    "endpoint": "EndpointService",
    "prediction": "PredictionService",
    "job": "JobService",
}
# No image is pulled: a public one is this very interpreter, which runs the text that the container is told to start, but on loopback.
START = ("{command}", "--host", "127.0.0.1")
_shared: dict[Path, Rehearsal] = {}
_lock = threading.Lock()


class Rehearsal(Vertex):
    """Vertex AI on this machine: what is sent are the API's own messages over gRPC, and the model servers are real processes."""

    def __init__(self, simulator: Simulator, **options: Any) -> None:
        super().__init__(
            project=simulator.project,
            location=simulator.location,
            bucket=BUCKET,
            transport_factory=lambda service: simulator.transport(SERVICES[service]),
            rest_url=simulator.storage_url,
            pace=Pace(simulator.speed),
            # Nothing of it outlives this process, so neither does the journal.
            capabilities=attrs.evolve(CAPABILITIES, durable=False),
            **options,
        )
        self.simulator = simulator
        """Its ``faults`` may be switched at any time."""

    def close(self) -> None:
        """Close connections and end the simulator with its processes."""
        super().close()
        self.simulator.stop()

    def shutdown(self) -> None:
        """End all of it, as ``modeldeploy stop`` asks; whoever names the backend next begins with an empty project."""
        with _lock:
            for home in [home for home, made in _shared.items() if made is self]:
                del _shared[home]
        self.close()


_OPTIONS = (
    "labels",
    "golden",
    "machine_type",
    "accelerator",
    "image",
    "base_image",
    "service_account",
    "spot",
    "batch_terms",
)


def start(
    *,
    speed: float = SPEED,
    home: Path | str | None = None,
    images: Mapping[str, Sequence[str]] | None = None,
    **options: Any,
) -> Rehearsal:
    """Start a simulator and give a backend on it; ``options`` that are not the backend's are the simulator's."""
    from modeldeploy.simulate.vertex import Simulator

    own = {name: options.pop(name) for name in _OPTIONS if name in options}
    public = [BASE_IMAGE, *filter(None, [own.get("base_image")])]
    known = {image.partition(":")[0]: START for image in public}
    simulator = Simulator(speed=speed, images={**known, **(images or {})}, **options).start()
    try:
        simulator.storage_client().create_bucket(BUCKET, location=simulator.location, timeout=10.0)
        return Rehearsal(simulator, home=home, **own)
    except BaseException:
        simulator.stop()
        raise


def shared(home: Path) -> Rehearsal:
    """Give the one rehearsal of this process for a state directory, as whoever names the backend means it."""
    with _lock:
        if home not in _shared:
            _shared[home] = start(home=home)
        return _shared[home]
