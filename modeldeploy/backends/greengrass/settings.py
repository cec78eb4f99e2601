"""Settings of the backend by name: from the configuration file or the environment, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeldeploy.errors import ConfigurationError

_TEXTS = ("region", "profile", "bucket", "thing_group", "endpoint_url")
_YES = frozenset({"true", "yes", "1", "on"})
_KNOWN = (*_TEXTS, "tags", "rehearsal")


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Make arguments of settings; ConfigurationError names one that is not known."""
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        message = f"backend 'greengrass' knows no setting {unknown[0]!r}"
        raise ConfigurationError(message, hint=f"known are {list(_KNOWN)}; credentials come from AWS's own chain")
    found: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name)}
    if given.get("rehearsal", "").lower() in _YES:
        found["rehearsal"] = True
    if given.get("tags"):
        found["tags"] = dict(_pair(part.strip()) for part in given["tags"].split(",") if part.strip())
    return found


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        message = f"tags of backend 'greengrass' hold {text!r}"
        raise ConfigurationError(message, hint="write KEY=VALUE, parts separated by commas")
    return key, value
