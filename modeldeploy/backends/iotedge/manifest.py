"""Deployment manifests: what a device is told to run, whole or as a layer over what it has from elsewhere."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.iotedge import names
from modeldeploy.backends.iotedge.options import IoTEdgeOptions
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import Revision

Json = dict[str, Any]
PIECE, MOST_PIECES = 512, 8
"""Characters of one value of a twin that create options may have, and pieces that they are cut into."""
SYSTEM = "mcr.microsoft.com"
AGENT_IMAGE, HUB_IMAGE = f"{SYSTEM}/azureiotedge-agent:1.6", f"{SYSTEM}/azureiotedge-hub:1.6"
"""Of the long-term release 1.6, which is serviced until 14 November 2028."""
_VERSION = "1.1"
_RECORD, _RECORD_PIECE, _RECORD_MOST = "record", 2_000, 20_000
_HUB_PORTS = ("443/tcp", "5671/tcp", "8883/tcp")


@attrs.frozen
class Defaults:
    """What is for all that is made."""

    image: str = ""
    devices: str = "tags.fleet = '{target}'"
    module: str = ""
    """The module's name on the devices; left out, that of the target."""
    layered: bool = False
    agent_image: str = AGENT_IMAGE
    hub_image: str = HUB_IMAGE
    environment: Mapping[str, str] = attrs.field(factory=dict[str, str])
    registries: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict[str, Mapping[str, str]])
    base_priority: int = 100

    def module_of(self, target: str) -> str:
        """Name the module of a target."""
        return self.module or target


def content(target: str, revision: Revision, defaults: Defaults) -> Json:
    """Write the manifest of a revision; the same revision always gives the same."""
    module = defaults.module_of(target)
    own = _module(target, revision, defaults)
    record = {_RECORD: _pieces(revision)}
    if defaults.layered:
        agent = {f"properties.desired.modules.{module}": own}
        return {"modulesContent": {"$edgeAgent": agent, module: {f"properties.desired.{names.TAG}": record}}}
    return {
        "modulesContent": {
            "$edgeAgent": {"properties.desired": _agent(module, own, defaults)},
            "$edgeHub": {"properties.desired": _hub()},
            module: {"properties.desired": {names.TAG: record}},
        }
    }


def image(revision: Revision, defaults: Defaults) -> str:
    """Name the image of a revision; ConfigurationError when there is none, or its name holds an unknown field."""
    given = IoTEdgeOptions.read(revision.options, "revision").image or defaults.image
    if not given:
        message = "backend 'iotedge' needs the image of the module that serves the model"
        raise ConfigurationError(message, hint="pass image='registry/name:{version}', or IoTEdgeOptions(image=...)")
    model = revision.model
    known = {"model": model.name, "version": model.version, "digest": model.digest.removeprefix("sha256:")[:12]}
    try:
        return given.format(**known)
    except (KeyError, IndexError, ValueError) as error:
        message = f"image {given!r} holds a field that is not known"
        raise ConfigurationError(message, hint=f"known are {sorted(known)}") from error


def _module(target: str, revision: Revision, defaults: Defaults) -> Json:
    options = IoTEdgeOptions.read(revision.options, "revision")
    own = {
        names.ENV_TARGET: target,
        names.ENV_REVISION: revision.id,
        names.ENV_MODEL: str(revision.model),
        names.ENV_DIGEST: revision.model.digest,
    }
    return {
        "version": revision.id,
        "type": "docker",
        "status": "running",
        "restartPolicy": options.restart_policy,
        "startupOrder": options.startup_order,
        "env": {name: {"value": value} for name, value in sorted({**defaults.environment, **own}.items())},
        "settings": settings(image(revision, defaults), options.container()),
    }


def _agent(module: str, own: Json, defaults: Defaults) -> Json:
    docker: Json = {"minDockerVersion": "v1.25"}
    if defaults.registries:
        docker["registryCredentials"] = {name: dict(each) for name, each in defaults.registries.items()}
    ports = {port: [{"HostPort": port.partition("/")[0]}] for port in _HUB_PORTS}
    hub = settings(defaults.hub_image, {"HostConfig": {"PortBindings": ports}})
    return {
        "schemaVersion": _VERSION,
        "runtime": {"type": "docker", "settings": docker},
        "systemModules": {
            "edgeAgent": {"type": "docker", "settings": settings(defaults.agent_image, {})},
            "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always", "settings": hub},
        },
        "modules": {module: own},
    }


def _hub() -> Json:
    # Answers stay on the device: no route leads upstream.
    return {"schemaVersion": _VERSION, "routes": {}, "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}


def settings(image_name: str, options: Mapping[str, Any]) -> Json:
    """Write a module's settings: create options are a text, cut where a value of a twin ends (512 characters).

    >>> settings("server:1", {})
    {'image': 'server:1', 'createOptions': '{}'}
    """
    text = json.dumps(options, sort_keys=True, separators=(",", ":"))
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    if len(pieces) > MOST_PIECES:
        message = f"the create options of {image_name!r} have {len(text)} characters"
        raise ConfigurationError(
            message, hint=f"IoT Edge takes {PIECE * MOST_PIECES}; move files and settings into the image"
        )
    named = {f"createOptions{number:02d}" if number else "createOptions": each for number, each in enumerate(pieces)}
    return {"image": image_name, **named}


def create_options(found: Mapping[str, Any]) -> Json:
    """Put create options together again, as the agent does."""
    keys = sorted(key for key in found if key.lower().startswith("createoptions"))
    options: Json = json.loads("".join(found[key] for key in keys))
    return options


# The record of a revision, which rides along in the module's twin


def _pieces(revision: Revision) -> dict[str, str]:
    """Write a revision as texts that values of a twin may have: 4 KB each, 32 KB together."""
    packed = zlib.compress(json.dumps(to_json(revision), sort_keys=True, separators=(",", ":")).encode(), 9)
    text = base64.b64encode(packed).decode()
    if len(text) > _RECORD_MOST:
        message = f"the signature of {revision.model} is too large for the twin of a module"
        raise ConfigurationError(
            message, hint="give a model with fewer columns, or one vector in place of many columns"
        )
    return {f"{at:02d}": text[at * _RECORD_PIECE :][:_RECORD_PIECE] for at in range(-(-len(text) // _RECORD_PIECE))}


def record(found: Mapping[str, Any]) -> Revision:
    """Read a revision out of the manifest of a configuration; IntegrityError when it is not there whole."""
    try:
        parts = _record_of(found["modulesContent"].values())
        text = "".join(parts[key] for key in sorted(parts))
        return from_json(Revision, json.loads(zlib.decompress(base64.b64decode(text, validate=True))))
    except (KeyError, TypeError, AttributeError, ValueError, zlib.error, binascii.Error, ConfigurationError) as error:
        message = f"the configuration holds no readable record of its revision: {error}"
        raise IntegrityError(message, hint="somebody else made or changed it; delete it, and deploy again") from error


def _record_of(modules: Iterable[Mapping[str, Any]]) -> Mapping[str, str]:
    for module in modules:
        own = module.get(f"properties.desired.{names.TAG}") or module.get("properties.desired", {}).get(names.TAG)
        if own:
            found: Mapping[str, str] = own[_RECORD]
            return found
    message = "no module has one"
    raise KeyError(message)
