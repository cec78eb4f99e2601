"""The conformance suite for backends: subclass ``ServingConformance``, give it a ``harness`` fixture, run pytest.

Needs pytest only. See docs/write-a-backend.md.
"""

from __future__ import annotations

import pytest

# Before the modules are imported, so that a failing test shows the values that were compared.
pytest.register_assert_rewrite(
    "modeldeploy.testing.batch",
    "modeldeploy.testing.contract",
    "modeldeploy.testing.devices",
    "modeldeploy.testing.driving",
    "modeldeploy.testing.edge",
    "modeldeploy.testing.expect",
    "modeldeploy.testing.harness",
    "modeldeploy.testing.rollable",
    "modeldeploy.testing.rollouts",
    "modeldeploy.testing.scenarios",
    "modeldeploy.testing.serving",
    "modeldeploy.testing.watched",
)
