"""SageMaker on a loopback port of this machine: the API itself, with real model-server processes behind it."""

from __future__ import annotations

from modeldeploy.simulate.sagemaker.faults import Faults
from modeldeploy.simulate.sagemaker.simulator import Simulator
from modeldeploy.simulate.sagemaker.world import Timings

__all__ = ["Faults", "Simulator", "Timings"]
