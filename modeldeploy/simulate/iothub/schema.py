"""What a deployment manifest of Azure IoT Edge must hold, as JSON schemas.

Written anew from the constraints of the public schema ``azure-iot-edge-deployment-2.0`` (SchemaStore, draft 4), so that both agree on what
is right. Layered deployments have no public schema: theirs is built from the same parts, by what Microsoft's pages say of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

_MOST = 4_294_967_295
_TEXT: Schema = {"type": "string"}
_NAME = "^[a-zA-Z0-9_-]+$"
_ROUTE_NAME = r"^[^\.\$# ]+$"
LAYERED = "properties.desired.modules."
"""How a layered deployment begins the name of each of its modules."""


def _closed(properties: Mapping[str, Schema], *required: str, patterns: Mapping[str, Schema] | None = None) -> Schema:
    """Describe an object that holds nothing else."""
    return {
        "type": "object",
        "properties": dict(properties),
        **({"required": list(required)} if required else {}),
        **({"patternProperties": dict(patterns)} if patterns else {}),
        "additionalProperties": False,
    }


def _one_of(*words: str) -> Schema:
    return {"enum": list(words)}


def _whole(most: int) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most}


_DOCKER = _one_of("docker")
_STATUS = _one_of("running", "stopped")
_RESTART = _one_of("never", "on-failure", "on-unhealthy", "always")
_PULL = _one_of("never", "on-create")
_SETTINGS = _closed({"image": _TEXT}, "image", patterns={"^(createoptions|createOptions)[0-9]*$": _TEXT})
_ENVIRONMENT = _closed(
    {}, patterns={r"^[^\+#$\s\.]+$": _closed({"value": {"type": ["number", "string", "boolean"]}}, "value")}
)
_SHARED = {
    "type": _DOCKER,
    "settings": _SETTINGS,
    "env": _ENVIRONMENT,
    "imagePullPolicy": _PULL,
}
_KEPT = {"status": _STATUS, "restartPolicy": _RESTART, "startupOrder": _whole(_MOST)}
_MODULE = _closed({**_SHARED, **_KEPT, "version": _TEXT}, "type", "status", "restartPolicy", "settings")
_REGISTRY = _closed(
    {"username": _TEXT, "password": _TEXT, "address": {"type": "string", "pattern": r"^[^\s]+$"}},
    "username", "password", "address",
)  # fmt: skip
_RUNTIME = _closed(
    {
        "type": _DOCKER,
        "settings": _closed(
            {
                "minDockerVersion": _TEXT,
                "loggingOptions": _TEXT,
                "registryCredentials": _closed({}, patterns={_ROUTE_NAME: _REGISTRY}),
            }
        ),
    },
    "type", "settings",
)  # fmt: skip
_SYSTEM = _closed(
    {
        "edgeAgent": _closed(_SHARED, "type", "settings"),
        "edgeHub": _closed({**_SHARED, **_KEPT}, "type", "settings", "status", "restartPolicy"),
    },
    "edgeAgent", "edgeHub",
)  # fmt: skip
_AGENT = _closed(
    {"schemaVersion": _TEXT, "runtime": _RUNTIME, "systemModules": _SYSTEM, "modules": _closed({}, patterns={_NAME: _MODULE})},
    "schemaVersion", "runtime", "systemModules", "modules",
)  # fmt: skip
_PATH: Schema = {"type": "string", "pattern": "^.+$"}
_ROUTE: Schema = {
    "anyOf": [_closed({"route": _PATH, "priority": _whole(9), "timeToLiveSecs": _whole(_MOST)}, "route"), _PATH]
}
_HUB = _closed(
    {
        "schemaVersion": _TEXT,
        "routes": _closed({}, patterns={_ROUTE_NAME: _ROUTE}),
        "storeAndForwardConfiguration": _closed({"timeToLiveSecs": {"type": "integer"}}, "timeToLiveSecs"),
    },
    "schemaVersion", "routes",
)  # fmt: skip
_TWIN = _closed({"properties.desired": {"type": "object"}}, "properties.desired")

FULL: Schema = _closed(
    {
        "modulesContent": _closed(
            {
                "$edgeAgent": _closed({"properties.desired": _AGENT}, "properties.desired"),
                "$edgeHub": _closed({"properties.desired": _HUB}, "properties.desired"),
            },
            "$edgeAgent", "$edgeHub",
            patterns={_NAME: _TWIN},
        )
    },
    "modulesContent",
)  # fmt: skip
"""A whole deployment, system modules and all."""

_LAYERED_TWIN: Schema = {
    "type": "object",
    "minProperties": 1,
    "patternProperties": {r"^properties\.desired(\.[^\.\$# ]+)*$": {}},
    "additionalProperties": False,
}
LAYER: Schema = _closed(
    {
        "modulesContent": _closed(
            {
                "$edgeAgent": _closed({}, patterns={r"^properties\.desired\.modules\.[a-zA-Z0-9_-]+$": _MODULE}),
                "$edgeHub": _closed({}, patterns={r"^properties\.desired\.routes\.[^\.\$# ]+$": _ROUTE}),
            },
            "$edgeAgent",
            patterns={_NAME: _LAYERED_TWIN},
        )
    },
    "modulesContent",
)
"""A layer over a deployment that the device has from elsewhere: single modules, no system modules."""


def is_layer(content: Mapping[str, Any]) -> bool:
    """Whether a manifest is of a layered deployment, which the keys of its agent tell."""
    agent = content.get("modulesContent", {}).get("$edgeAgent", {})
    return bool(agent) and all(str(key).startswith(LAYERED) for key in agent)


def faults(content: Mapping[str, Any]) -> list[str]:
    """Say all that is wrong with a manifest, each with the place where it is; nothing when it is right."""
    found = _validator(layer=is_layer(content)).iter_errors(content)
    return sorted(_said(error) for error in found)


@functools.cache
def _validator(*, layer: bool) -> Any:
    from jsonschema import Draft4Validator

    return Draft4Validator(LAYER if layer else FULL)


def _said(error: Any) -> str:
    where = "/".join(_keys(error.absolute_path)) or "manifest"
    return f"{where}: {error.message}"


def _keys(path: Any) -> Iterator[str]:
    yield from (str(each) for each in path)
