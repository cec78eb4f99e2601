"""Values to build others from."""

from __future__ import annotations

import pytest

from modeldeploy.values.model import DType, Field, ModelVersion, Signature

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def model():
    """Give a packaged model."""
    signature = Signature((Field("x", DType.FLOAT64, (None, 3)),), (Field("y", DType.STRING, nullable=True),))
    return ModelVersion("iris", "1.0.0", DIGEST, "/bundles/iris", "sklearn", signature)
