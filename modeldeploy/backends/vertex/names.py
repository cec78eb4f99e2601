"""Names, ids and labels at the provider: all follow from content, none is drawn, so whoever repeats a step finds what the step made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from modeldeploy.backends.cloud.naming import digest
from modeldeploy.errors import ConfigurationError

LABEL_ENDPOINT = "modeldeploy-endpoint"
LABEL_SERIAL = "modeldeploy-serial"
"""Counts the tables that an endpoint was given, so that a table that came back is another version."""
LABEL_MODEL = "modeldeploy-model"
LABEL_REVISION = "modeldeploy-revision"
LABEL_SPEC = "modeldeploy-spec"
LABEL_JOB = "modeldeploy-job"
LABEL_RUN = "modeldeploy-run"
ENV_RECORD, ENV_TRUST = "MODELDEPLOY_RECORD", "MODELDEPLOY_TRUST"
ENV_ENDPOINT, ENV_REVISION = "MODELDEPLOY_ENDPOINT", "MODELDEPLOY_REVISION"
MOST_LABEL_CHARS = 63
_DIGITS = 10
_HASH_CHARS = 12
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


def deployed_id(revision: str) -> str:
    """Give the id of the deployed model of a revision: ten digits, which is all that the service takes."""
    whole = int(hashlib.sha256(revision.encode()).hexdigest(), 16)
    return str(10 ** (_DIGITS - 1) + whole % (9 * 10 ** (_DIGITS - 1)))


def label(text: str) -> str:
    """Give a text as a label's value: the part of a long hash that fits."""
    return text[:MOST_LABEL_CHARS]


def content(document: object) -> str:
    """Name what is stored by what it holds."""
    return digest(document)[:_HASH_CHARS]


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Refuse labels that the service would refuse; ConfigurationError names the one that is wrong."""
    for key, value in labels.items():
        if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            message = f"label {key!r} is {value!r}"
            hint = "use lower-case letters, digits, '_' and '-', at most 63, keys beginning with a letter"
            raise ConfigurationError(message, hint=hint)
        if key.startswith("modeldeploy-"):
            message = f"label {key!r} is one of those that this library sets"
            raise ConfigurationError(message, hint="use a key that does not begin with 'modeldeploy-'")
    return dict(labels)
