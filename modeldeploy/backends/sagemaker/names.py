"""Names at the provider: all follow from content, none is drawn, so whoever repeats a step finds what the step made."""

from __future__ import annotations

import re
from typing import Any

from modeldeploy.backends.cloud.naming import digest, is_name, spec
from modeldeploy.values.serving import Revision

__all__ = ["digest", "is_name", "spec"]

_PREFIX = "modeldeploy"
_CONFIG_HASH, _MODEL_HASH = 12, 8
_REVISION_CHARS = 20

PRIMARY = "primary"
"""The variant of an endpoint that the service guards."""

TAG_ENDPOINT = f"{_PREFIX}:endpoint"
TAG_REVISION = f"{_PREFIX}:revision"
TAG_SPEC = f"{_PREFIX}:spec"
ENV_ENDPOINT, ENV_REVISION = "MODELDEPLOY_ENDPOINT", "MODELDEPLOY_REVISION"
ENV_SPEC, ENV_RECORD = "MODELDEPLOY_SPEC", "MODELDEPLOY_RECORD"


def model_name(endpoint: str, revision: Revision) -> str:
    """Name the Model of a revision: 63 characters at most, and another one for other content.

    The endpoint is part of it: a revision may serve in two endpoints, and each takes its own away.
    """
    return f"{_model_prefix(endpoint, revision.id)}{digest([endpoint, revision.id, spec(revision)])[:_MODEL_HASH]}"


def _model_prefix(endpoint: str, revision: str) -> str:
    return f"{endpoint}-{revision[:_REVISION_CHARS].strip('-')}-"


def may_be_model(name: str, endpoint: str, revision: str) -> bool:
    """Whether a Model of this name can be the one of a revision; what it holds says whether it is."""
    prefix = _model_prefix(endpoint, revision)
    return name.startswith(prefix) and len(name) == len(prefix) + _MODEL_HASH


def config_name(endpoint: str, content: Any) -> str:
    """Name an EndpointConfig by what it holds."""
    return f"{endpoint}-{digest(content)[:_CONFIG_HASH]}"


def may_be_config(name: str, endpoint: str) -> bool:
    """Whether an EndpointConfig of this name can be one of an endpoint."""
    return re.fullmatch(rf"{re.escape(endpoint)}-[0-9a-f]{{{_CONFIG_HASH}}}", name) is not None


def place(endpoint: str, revision: str = "") -> str:
    """Give the prefix in the bucket under which all of an endpoint, or of one revision, lies."""
    return f"{_PREFIX}/endpoints/{endpoint}/{f'{revision}/' if revision else ''}"


def log_group(endpoint: str) -> str:
    """Name the log group of an endpoint's containers."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def resource(endpoint: str, revision: str) -> str:
    """Name a variant as autoscaling does."""
    return f"endpoint/{endpoint}/variant/{revision}"


def captured(endpoint: str) -> str:
    """Give the prefix of what data capture writes; it is the user's, and stays when the endpoint goes."""
    return f"{_PREFIX}/captured/{endpoint}"
