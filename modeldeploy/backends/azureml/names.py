"""Names and marks at the provider: all follow from content, none is drawn, so whoever repeats a step finds what the step made."""

from __future__ import annotations

import re

from modeldeploy.backends.cloud.naming import digest
from modeldeploy.values.model import ModelVersion

TAG_ENDPOINT = "modeldeploy-endpoint"
TAG_REVISION = "modeldeploy-revision"
TAG_SPEC = "modeldeploy-spec"
TAG_SERIAL = "modeldeploy-serial"
"""Counts the tables that an endpoint was given, so that a table that came back is another version."""
TAG_BEFORE = "modeldeploy-before"
"""The table before this one, for whoever looks with another tool."""
TAG_DIGEST = "modeldeploy-digest"
ENV_RECORD, ENV_TRUST = "MODELDEPLOY_RECORD", "MODELDEPLOY_TRUST"
ENV_ENDPOINT, ENV_REVISION = "MODELDEPLOY_ENDPOINT", "MODELDEPLOY_REVISION"
ENVIRONMENT = "modeldeploy-serving"
MOST_TAG_CHARS = 256
_DIGEST_CHARS = 8
_HASH_CHARS = 12
_MOST_VERSION_CHARS = 21


def model_version(model: ModelVersion) -> str:
    """Name the version of a registered model: its own, and the beginning of its digest, for a version keeps its bytes for ever."""
    digits = model.digest.removeprefix("sha256:")[:_DIGEST_CHARS]
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", model.version)[:_MOST_VERSION_CHARS]
    return f"{plain}-{digits}"


def environment_version(content: object) -> str:
    """Name the version of an environment by what it holds."""
    return digest(content)[:_HASH_CHARS]


def reference(name: str, version: str) -> str:
    """Refer to a registered model or environment of the workspace."""
    return f"azureml:{name}:{version}"


def autoscale(endpoint: str, revision: str) -> str:
    """Name the autoscale setting of a deployment."""
    return f"modeldeploy-{endpoint}-{revision}"
