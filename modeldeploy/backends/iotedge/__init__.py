"""Azure IoT Edge: ``from modeldeploy.backends.iotedge import IoTEdge``."""

from __future__ import annotations

from modeldeploy.backends.iotedge.backend import IoTEdge
from modeldeploy.backends.iotedge.options import IoTEdgeOptions

__all__ = ["IoTEdge", "IoTEdgeOptions"]
