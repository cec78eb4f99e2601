"""Settings of the backend: by name from the configuration file or the environment, and from the workspace's own ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modeldeploy.backends.azureml.terms import TERMS, Terms
from modeldeploy.errors import ConfigurationError

_WHERE = ("subscription_id", "resource_group", "workspace")
_TEXTS = (*_WHERE, "instance_type", "auth_mode", "image")
_YES = frozenset({"true", "yes", "1", "on"})
_BATCH = "batch_"
_KNOWN = (*_TEXTS, "config", "tags", "rehearsal", *(f"{_BATCH}{name}" for name in TERMS))
_FILES = (".azureml/config.json", "config.json", "aml_config/config.json")
"""Where the portal's download and Azure's own tools put it; each directory above is looked into, too."""
_THEIR_NAMES = {"workspace": "workspace_name"}


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Make arguments of settings; ConfigurationError names one that is not known."""
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        message = f"backend 'azureml' knows no setting {unknown[0]!r}"
        raise ConfigurationError(
            message, hint=f"known are {list(_KNOWN)}; credentials come from azure-identity's chain"
        )
    found: dict[str, Any] = {name: given[name] for name in (*_TEXTS, "config") if given.get(name)}
    if given.get("rehearsal", "").lower() in _YES:
        found["rehearsal"] = True
    terms = {name.removeprefix(_BATCH): text for name, text in given.items() if name.startswith(_BATCH)}
    if terms:
        found["batch_terms"] = Terms.read(terms)
    if given.get("tags"):
        found["tags"] = dict(_pair(part) for part in given["tags"].split(",") if part.strip())
    return found


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.strip().partition("=")
    if not sign or not key:
        message = f"tags of backend 'azureml' hold {text!r}"
        raise ConfigurationError(message, hint="write KEY=VALUE, parts separated by commas")
    return key, value


def workspace(given: Mapping[str, str], config: Path | str | None, *, start: Path | None = None) -> dict[str, str]:
    """Say which workspace is meant: what was given, and for the rest the ``config.json`` that is nearest.

    Nothing is demanded here: what is missing is told when the workspace is first needed.
    """
    missing = [name for name in _WHERE if not given.get(name)]
    found = {name: given[name] for name in _WHERE if given.get(name)}
    if missing:
        document = _read(Path(config)) if config else _nearest(start or Path.cwd())
        found |= {name: document[name] for name in missing if document.get(name)}
    return found


def refuse_incomplete(found: Mapping[str, str]) -> None:
    """Refuse a workspace of which something is missing."""
    missing = [name for name in _WHERE if not found.get(name)]
    if missing:
        message = f"backend 'azureml' was not told {missing}"
        variables = ", ".join(f"MODELDEPLOY_AZUREML_{name.upper()}" for name in missing)
        hint = f"pass {missing[0]}=, set {variables}, or download config.json from the workspace's page"
        raise ConfigurationError(message, hint=hint)


def _nearest(start: Path) -> dict[str, str]:
    for path in _candidates(start):
        if path.is_file() and (found := _read(path, strict=False)):
            return found
    return {}


def _candidates(start: Path) -> Iterator[Path]:
    for folder in (start, *start.parents):
        yield from (folder / name for name in _FILES)


def _read(path: Path, *, strict: bool = True) -> dict[str, str]:
    """Read a ``config.json`` of a workspace; one that was only met on the way, and is of something else, says nothing."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if not strict:
            return {}
        message = f"{str(path)!r} cannot be read: {error}"
        raise ConfigurationError(message, hint="give the config.json of a workspace") from error
    named = {name: document.get(_THEIR_NAMES.get(name, name)) for name in _WHERE} if isinstance(document, dict) else {}
    found = {name: value for name, value in named.items() if isinstance(value, str) and value}
    if len(found) == len(_WHERE):
        return found
    if strict:
        message = f"{str(path)!r} does not name a workspace"
        raise ConfigurationError(message, hint="it holds subscription_id, resource_group and workspace_name")
    return {}
