"""Reads references to assets: resource ids, and their short forms."""

from __future__ import annotations

import re

from modeldeploy.simulate.azureml.assets import Asset, Assets
from modeldeploy.simulate.azureml.errors import bad_request

_ID = re.compile(r".*/(?P<plural>\w+)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)")
_SHORT = re.compile(r"(?:azureml:)?(?P<name>[^:/]+):(?P<version>[^:/]+)")


def asset_of(reference: str, within: Assets) -> Asset:
    """Find the asset that a reference names; the service's error when it names none of these."""
    found = _ID.fullmatch(reference) or _SHORT.fullmatch(reference)
    if found is None or found.groupdict().get("plural", within.kind.plural) != within.kind.plural:
        raise bad_request(f"{reference} does not name one of the {within.kind.plural}.")
    return within.get(found["name"], found["version"])
