"""The Vertex AI backend passes the suite that every backend must pass, on the rehearsal."""

from __future__ import annotations

from modeldeploy.testing.serving import ServingConformance


class TestVertex(ServingConformance):
    pass
