"""Names and hashes that follow from content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.codec import to_json
from modeldeploy.values.names import check_name
from modeldeploy.values.serving import Revision


def is_name(text: str) -> bool:
    """Whether there can be an endpoint of ours, or a revision, with this name."""
    try:
        check_name(text, "name")
    except ConfigurationError:
        return False
    return True


def digest(document: Any) -> str:
    """Give the SHA-256 of a document, in hexadecimal digits."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def spec(revision: Revision) -> str:
    """Give the hash of all that a revision is."""
    return digest(to_json(revision))
