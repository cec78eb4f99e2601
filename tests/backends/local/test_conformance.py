"""The local backend passes the suite that every backend must pass, for real."""

from __future__ import annotations

import pytest

from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.engine.drivers import RealClock
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.serving import ServingConformance


@pytest.fixture
def harness(local, broken_model, query) -> Harness:
    return Harness(
        local.backend,
        tuple(local.revision(step) for step in (1, 2, 3)),
        payload=query(7.0),
        broken=local.revision(4, model=broken_model),
        clock=RealClock(),
        reopen=lambda: LocalBackend(local.home),
    )


class TestLocal(ServingConformance):
    pass
