"""Vertex AI on loopback ports of this machine: the API itself over gRPC, with real model servers behind it."""

from __future__ import annotations

from modeldeploy.simulate.vertex.faults import Faults
from modeldeploy.simulate.vertex.simulator import Simulator
from modeldeploy.simulate.vertex.world import Timings

__all__ = ["Faults", "Simulator", "Timings"]
