"""What a component's recipe must hold, as a JSON schema over its keys in lower case, for the format knows no case.

Written anew from the constraints of the public schema in the Greengrass Development Kit's command line (draft 7), and stricter in one
place: a manifest's and an artefact's unknown keys are refused, which the public one lets pass.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

FORMAT = "2020-01-25"
_TEXT: Schema = {"type": "string"}
_WORD: Schema = {"type": ["string", "number", "boolean"]}
_STEPS = ("bootstrap", "install", "startup", "run", "shutdown", "recover")
# Below these, names are the user's own and keep their case.
_FREE = frozenset({"defaultconfiguration", "setenv", "componentdependencies"})


def _closed(properties: Mapping[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False}


def _either(*words: str) -> Schema:
    return {"type": "string", "pattern": f"^(?i:{'|'.join(words)})$"}


_ENVIRONMENT: Schema = {"type": "object", "additionalProperties": _WORD}
_STEP: Schema = {
    "anyOf": [
        _TEXT,
        _closed(
            {
                "script": _TEXT,
                "skipif": {"type": "string", "pattern": r"^(onpath|exists)\s+.*"},
                "requiresprivilege": {"type": ["boolean", "string"]},
                "setenv": _ENVIRONMENT,
                "timeout": {"type": ["integer", "string"]},
            },
            "script",
        ),
    ]
}
_LIFECYCLE = _closed({"setenv": _ENVIRONMENT, **dict.fromkeys(_STEPS, _STEP)})
_PERMISSION = _either("NONE", "OWNER", "ALL")
_ARTIFACT = _closed(
    {
        "uri": {"type": "string", "pattern": "^(s3|greengrass|docker):"},
        "unarchive": _either("ZIP", "NONE"),
        "permission": _closed({"read": _PERMISSION, "execute": _PERMISSION}),
        "digest": _TEXT,
        "algorithm": _TEXT,
    },
    "uri",
)
_MANIFEST = _closed(
    {
        "name": _TEXT,
        "platform": {"type": "object", "additionalProperties": _TEXT},
        "lifecycle": _LIFECYCLE,
        "selections": {"type": "array", "items": _TEXT},
        "artifacts": {"type": "array", "items": _ARTIFACT},
    }
)
RECIPE = _closed(
    {
        "recipeformatversion": {"enum": [FORMAT]},
        "componentname": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]+$", "maxLength": 128},
        "componentversion": {"type": "string", "pattern": r"^\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]+)?$", "maxLength": 64},
        "componentdescription": _TEXT,
        "componentpublisher": _TEXT,
        "componenttype": _either(r"aws\.greengrass\.(nucleus|generic|plugin|lambda)"),
        "componentsource": _TEXT,
        "componentconfiguration": {"type": "object", "properties": {"defaultconfiguration": {}}},
        "componentdependencies": {
            "type": "object",
            "additionalProperties": {"type": "object"},
        },
        "manifests": {"type": "array", "minItems": 1, "items": _MANIFEST},
        "lifecycle": {"type": "object"},
    },
    "recipeformatversion", "componentname", "componentversion", "manifests",
)  # fmt: skip


def lowered(found: Any) -> Any:
    """Write the keys of a recipe in lower case, but for names that are the user's own."""
    if isinstance(found, Mapping):
        return {
            str(key).lower(): value if str(key).lower() in _FREE else lowered(value) for key, value in found.items()
        }
    return [lowered(each) for each in found] if isinstance(found, list) else found


def faults(recipe: Mapping[str, Any]) -> list[str]:
    """Say all that is wrong with a recipe, each with the place where it is; nothing when it is right."""
    found = _validator().iter_errors(lowered(recipe))
    return sorted(f"{'/'.join(map(str, error.absolute_path)) or 'recipe'}: {error.message}" for error in found)


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(RECIPE)
