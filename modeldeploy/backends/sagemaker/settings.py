"""Settings of the backend by name: from the configuration file or the environment, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modeldeploy.backends.sagemaker.terms import TERMS, Terms
from modeldeploy.errors import ConfigurationError

_TEXTS = ("region", "role", "bucket", "profile", "endpoint_url", "instance_type", "image", "kms_key")
_LISTS = {"subnets": "Subnets", "security_groups": "SecurityGroupIds"}
_YES = frozenset({"true", "yes", "1", "on"})
_BATCH = "batch_"
_KNOWN = (*_TEXTS, *_LISTS, "tags", "rehearsal", *(f"{_BATCH}{name}" for name in TERMS))


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Make arguments of settings; ConfigurationError names one that is not known."""
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        message = f"backend 'sagemaker' knows no setting {unknown[0]!r}"
        raise ConfigurationError(message, hint=f"known are {list(_KNOWN)}; credentials come from AWS's own chain")
    found: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name)}
    network = {member: _list(given[name]) for name, member in _LISTS.items() if given.get(name)}
    if network:
        found["vpc"] = network
    if given.get("rehearsal", "").lower() in _YES:
        found["rehearsal"] = True
    terms = {name.removeprefix(_BATCH): value for name, value in given.items() if name.startswith(_BATCH) and value}
    if terms:
        found["batch_terms"] = Terms.read(terms)
    if given.get("tags"):
        found["tags"] = dict(_pair(part) for part in _list(given["tags"]))
    return found


def network(given: Mapping[str, Iterable[str]] | None) -> dict[str, tuple[str, ...]] | None:
    """Check a network: it needs subnets and security groups."""
    if given is None:
        return None
    found = {name: tuple(given[name]) for name in given}
    if set(found) != set(_LISTS.values()) or not all(found.values()):
        message = f"vpc is {dict(found)!r}"
        raise ConfigurationError(
            message, hint="give {'Subnets': [...], 'SecurityGroupIds': [...]}, neither of them empty"
        )
    return found


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        message = f"tags of backend 'sagemaker' hold {text!r}"
        raise ConfigurationError(message, hint="write KEY=VALUE, parts separated by commas")
    return key, value
