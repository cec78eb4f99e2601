"""Azure Machine Learning on a loopback port of this machine: the API itself, with real scoring processes behind it."""

from __future__ import annotations

from modeldeploy.simulate.azureml.elsewhere import Account
from modeldeploy.simulate.azureml.faults import Faults
from modeldeploy.simulate.azureml.simulator import Simulator
from modeldeploy.simulate.azureml.world import Timings

__all__ = ["Account", "Faults", "Simulator", "Timings"]
