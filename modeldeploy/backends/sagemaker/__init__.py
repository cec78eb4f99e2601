"""Amazon SageMaker: ``from modeldeploy.backends.sagemaker import SageMaker``."""

from __future__ import annotations

from modeldeploy.backends.sagemaker.backend import SageMaker
from modeldeploy.backends.sagemaker.guard import ServerGuard
from modeldeploy.backends.sagemaker.options import SageMakerEndpointOptions, SageMakerOptions

__all__ = ["SageMaker", "SageMakerEndpointOptions", "SageMakerOptions", "ServerGuard"]
