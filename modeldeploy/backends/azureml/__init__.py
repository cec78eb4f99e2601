"""Azure Machine Learning: ``from modeldeploy.backends.azureml import AzureML``."""

from __future__ import annotations

from modeldeploy.backends.azureml.backend import AzureML
from modeldeploy.backends.azureml.options import AzureMLEndpointOptions, AzureMLOptions

__all__ = ["AzureML", "AzureMLEndpointOptions", "AzureMLOptions"]
