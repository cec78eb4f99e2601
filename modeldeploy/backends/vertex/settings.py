"""Settings of the backend: by name from the configuration file or the environment, and from Google's own variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from modeldeploy.backends.vertex.terms import TERMS, Terms
from modeldeploy.errors import ConfigurationError

GOLDEN = ("staging", "skip")
_WHERE = ("project", "location", "bucket")
_TEXTS = (*_WHERE, "service_account", "machine_type", "image", "base_image", "golden")
_YES = frozenset({"true", "yes", "1", "on"})
_BATCH = "batch_"
_KNOWN = (*_TEXTS, "labels", "rehearsal", *(f"{_BATCH}{name}" for name in TERMS))
_THEIRS = {"project": ("GOOGLE_CLOUD_PROJECT",), "location": ("GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION")}
"""Where Google's own tools say the same. Nothing is asked of the network: the SDK would ask Resource Manager, for 47 s where it is not reached."""


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Make arguments of settings; ConfigurationError names one that is not known."""
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        message = f"backend 'vertex' knows no setting {unknown[0]!r}"
        hint = f"known are {list(_KNOWN)}; credentials are found as Google's own tools find them"
        raise ConfigurationError(message, hint=hint)
    found: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name)}
    if given.get("rehearsal", "").lower() in _YES:
        found["rehearsal"] = True
    terms = {name.removeprefix(_BATCH): text for name, text in given.items() if name.startswith(_BATCH)}
    if terms:
        found["batch_terms"] = Terms.read(terms)
    if given.get("labels"):
        found["labels"] = dict(_pair(part) for part in given["labels"].split(",") if part.strip())
    return found


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.strip().partition("=")
    if not sign or not key:
        message = f"labels of backend 'vertex' hold {text!r}"
        raise ConfigurationError(message, hint="write KEY=VALUE, parts separated by commas")
    return key, value


def where(given: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Say which project, region and bucket are meant: what was given, and for the rest what Google's own variables say.

    Nothing is demanded here: what is missing is told when it is first needed.
    """
    environ = os.environ if environ is None else environ
    found = {name: given.get(name, "") for name in _WHERE}
    for name, variables in _THEIRS.items():
        found[name] = found[name] or next((environ[each] for each in variables if environ.get(each)), "")
    found["bucket"] = found["bucket"].removeprefix("gs://").strip("/")
    return found


def refuse_incomplete(found: Mapping[str, str], *needed: str) -> None:
    """Refuse to work where something is missing that is needed."""
    missing = [name for name in needed if not found.get(name)]
    if missing:
        message = f"backend 'vertex' was not told its {' and its '.join(missing)}"
        variables = ", ".join(f"MODELDEPLOY_VERTEX_{name.upper()}" for name in missing)
        raise ConfigurationError(message, hint=f"pass {missing[0]}=, or set {variables}; {_HOW[missing[0]]}")


_HOW = {
    "project": "gcloud projects list shows those that you have",
    "location": "such as europe-west4, the region of the bucket too",
    "bucket": "gcloud storage buckets create gs://NAME --location=REGION makes one",
}


def check_golden(golden: str) -> str:
    """Refuse a word for how golden outputs are checked that is not known."""
    if golden not in GOLDEN:
        message = f"golden is {golden!r}"
        raise ConfigurationError(message, hint=f"use one of {list(GOLDEN)}")
    return golden
