"""A hub whose devices act when a test says so."""

from __future__ import annotations

import pytest

from modeldeploy.simulate.iothub import Simulator


@pytest.fixture
def simulator():
    with Simulator(manual=True, page=2) as made:
        yield made


@pytest.fixture
def manifest_of():
    """Give ``manifest_of(version, **modules)``: a whole deployment, or with ``layer=True`` a layer."""

    def make(version: str = "1", *, name: str = "scorer", layer: bool = False):
        settings = {"image": f"registry.example/{name}:{version}", "createOptions": "{}"}
        own = {
            "version": version,
            "type": "docker",
            "status": "running",
            "restartPolicy": "always",
            "settings": settings,
        }
        if layer:
            return {"modulesContent": {"$edgeAgent": {f"properties.desired.modules.{name}": own}}}
        system = {"type": "docker", "settings": {"image": "agent:1.6"}}
        hub = {**system, "status": "running", "restartPolicy": "always"}
        agent = {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "systemModules": {"edgeAgent": system, "edgeHub": hub},
            "modules": {name: own},
        }
        hub_twin = {"schemaVersion": "1.1", "routes": {}}
        return {
            "modulesContent": {
                "$edgeAgent": {"properties.desired": agent},
                "$edgeHub": {"properties.desired": hub_twin},
            }
        }

    return make
