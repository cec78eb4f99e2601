"""AWS IoT Greengrass v2 on this machine: ``from modeldeploy.simulate.greengrass import Simulator``."""

from __future__ import annotations

from modeldeploy.simulate.greengrass.faults import Faults
from modeldeploy.simulate.greengrass.simulator import Simulator

__all__ = ["Faults", "Simulator"]
