"""Our own fleet: devices that run ``modeldeploy.edge_agent`` and pull what they are to run from a directory, a hub or an object store."""

from __future__ import annotations

from modeldeploy.backends.fleet.backend import FleetBackend

__all__ = ["FleetBackend"]
