"""The backend on a simulator in this process, for rehearsals without a subscription."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from modeldeploy.backends.azureml.backend import AzureML
from modeldeploy.backends.azureml.capabilities import CAPABILITIES
from modeldeploy.backends.azureml.client import Cloud
from modeldeploy.backends.azureml.pace import Pace
from modeldeploy.backends.azureml.terms import Terms

if TYPE_CHECKING:
    from modeldeploy.simulate.azureml import Simulator

SPEED = 120.0
"""Two minutes of the service in a second."""
COMPUTE = "cpu-cluster"
"""The simulator has any cluster."""
_shared: dict[Path, Rehearsal] = {}
_lock = threading.Lock()


class Rehearsal(AzureML):
    """Azure ML on this machine: what is sent is checked by the SDK's own models, and the model servers are real processes."""

    def __init__(
        self, simulator: Simulator, *, image: str = "", batch_terms: Terms | None = None, **options: Any
    ) -> None:
        given = simulator.client_options()
        super().__init__(
            subscription_id=simulator.subscription_id,
            resource_group=simulator.resource_group,
            workspace=simulator.workspace,
            credential=simulator.credential,
            cloud=Cloud(given["cloud"], given["cloud_metadata"], given["authentication_policy"]),
            image=image,
            batch_terms=batch_terms or Terms(compute=COMPUTE),
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
        """End all of it, as ``modeldeploy stop`` asks; whoever names the backend next begins with an empty workspace."""
        with _lock:
            for home in [home for home, made in _shared.items() if made is self]:
                del _shared[home]
        self.close()


def start(
    *,
    speed: float = SPEED,
    image: str = "",
    home: Path | str | None = None,
    tags: Any = None,
    auth_mode: str = "key",
    batch_terms: Terms | None = None,
    **options: Any,
) -> Rehearsal:
    """Start a simulator and give a backend on it; ``options`` are the simulator's."""
    from modeldeploy.simulate.azureml import Simulator

    simulator = Simulator(speed=speed, **options).start()
    try:
        return Rehearsal(simulator, image=image, home=home, tags=tags, auth_mode=auth_mode, batch_terms=batch_terms)
    except BaseException:
        simulator.stop()
        raise


def shared(home: Path) -> Rehearsal:
    """Give the one rehearsal of this process for a state directory, as whoever names the backend means it."""
    with _lock:
        if home not in _shared:
            _shared[home] = start(home=home)
        return _shared[home]
