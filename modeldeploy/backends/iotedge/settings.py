"""Settings of the backend by name: from the configuration file or the environment, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeldeploy.errors import ConfigurationError

CONNECTION_STRING = "IOTHUB_CONNECTION_STRING"
"""The variable that may hold a hub's connection string, which is a secret and stands in no file."""
_TEXTS = ("hub", "image", "devices", "module", "agent_image", "hub_image")
_FLAGS = ("layered", "rehearsal")
_YES = frozenset({"true", "yes", "1", "on"})
_KNOWN = (*_TEXTS, *_FLAGS)


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Make arguments of settings; ConfigurationError names one that is not known."""
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        message = f"backend 'iotedge' knows no setting {unknown[0]!r}"
        hint = f"known are {list(_KNOWN)}; a connection string is taken from the variable {CONNECTION_STRING} alone"
        raise ConfigurationError(message, hint=hint)
    found: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name)}
    return found | {name: True for name in _FLAGS if given.get(name, "").lower() in _YES}
