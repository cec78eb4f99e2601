"""An account whose devices act when a test says so."""

from __future__ import annotations

import os

import pytest

from modeldeploy.simulate.greengrass import Simulator
from modeldeploy.simulate.greengrass.records import Timings


@pytest.fixture(scope="session", autouse=True)
def _no_account():
    """See to it that no test can meet an account of whoever runs it."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in kept:
        del os.environ[name]
    yield
    os.environ.update(kept)


@pytest.fixture
def simulator():
    with Simulator(manual=True, timings=Timings(deployable=0.0, queue=0.0, apply=0.0)) as made:
        yield made


@pytest.fixture
def recipe_of():
    """Give ``recipe_of(version, uri)``: a component that runs one script."""

    def make(version: str = "1.0.0", uri: str = ""):
        artifacts = [{"Uri": uri, "Unarchive": "ZIP"}] if uri else []
        return {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": "com.example.scorer",
            "ComponentVersion": version,
            "ComponentConfiguration": {"DefaultConfiguration": {"revision": f"v{version}", "Port": 1}},
            "Manifests": [{"Lifecycle": {"Run": {"Script": "exec python3 -m scorer"}}, "Artifacts": artifacts}],
        }

    return make
