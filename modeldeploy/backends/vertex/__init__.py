"""Google Vertex AI: ``from modeldeploy.backends.vertex import Vertex``."""

from __future__ import annotations

from modeldeploy.backends.vertex.backend import Vertex
from modeldeploy.backends.vertex.options import VertexEndpointOptions, VertexOptions

__all__ = ["Vertex", "VertexEndpointOptions", "VertexOptions"]
