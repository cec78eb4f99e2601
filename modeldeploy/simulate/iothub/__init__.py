"""Azure IoT Hub on this machine: ``from modeldeploy.simulate.iothub import Simulator``."""

from __future__ import annotations

from modeldeploy.simulate.iothub.faults import Faults
from modeldeploy.simulate.iothub.simulator import Simulator

__all__ = ["Faults", "Simulator"]
