"""The recipe of a component, and the deployment that brings it to a group of devices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.backends.greengrass import artifact, names
from modeldeploy.backends.greengrass.options import INSTALL, GreengrassOptions
from modeldeploy.values.serving import Revision

Json = dict[str, Any]
FORMAT = "2020-01-25"
_HOME = f"{{artifacts:decompressedPath}}/{artifact.FOLDER}"
_OWN_PYTHON = "{work:path}/env/bin/python"
_SELF_TEST = (
    "from pathlib import Path; from modeldeploy.packaging.rehearse import rehearse; rehearse(Path('bundle').resolve())"
)
_PUBLISHER = "modeldeploy"


@attrs.frozen
class Limits:
    """How fast a deployment reaches the devices of a group, and when the service stops it."""

    per_minute: int = 50
    """Devices in the first minute, 1 to 1000."""
    factor: float = 2.0
    """By how much the rate grows, 1.1 to 5, when ``grow_after`` devices have succeeded."""
    grow_after: int = 10
    most_per_minute: int = 1_000
    failed_percent: float = 20.0
    """The service stops the deployment when more of the devices that have ended it failed."""
    failed_least: int = 5
    """And at least so many have ended it."""
    minutes: int = 60
    """How long a device may take before it counts as failed."""


def component(target: str, revision: Revision, url: str) -> Json:
    """Write the recipe of a revision; the same revision and place always give the same.

    Installing ends with the self-test: the golden examples of the bundle, answered on the device. One that fails makes the deployment
    fail there, and the device goes back to what it had.
    """
    options = GreengrassOptions.read(revision.options, "revision")
    python = _OWN_PYTHON if options.libraries == INSTALL else options.python
    return {
        "RecipeFormatVersion": FORMAT,
        "ComponentName": names.component(target),
        "ComponentVersion": names.version(target, revision),
        "ComponentDescription": f"{revision.model} as revision {revision.id}",
        "ComponentPublisher": _PUBLISHER,
        "ComponentType": "aws.greengrass.generic",
        "ComponentConfiguration": {"DefaultConfiguration": {"port": options.port, "revision": revision.id}},
        "Manifests": [
            {
                "Platform": {"os": "linux"},
                "Lifecycle": {
                    # Official builds of onnxruntime send telemetry unless this is set before they are loaded.
                    "Setenv": {"PYTHONPATH": _HOME, "ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"},
                    "Install": {"Script": _install(options, python), "Timeout": options.install_timeout},
                    "Run": {"Script": _run(target, revision, python)},
                },
                "Artifacts": [{"Uri": url, "Unarchive": "ZIP", "Permission": {"Read": "OWNER", "Execute": "NONE"}}],
            }
        ],
    }


def _install(options: GreengrassOptions, python: str) -> str:
    made = [
        f"{options.python} -m venv {{work:path}}/env",
        f"{python} -m pip install --quiet --disable-pip-version-check -r {_HOME}/requirements.txt",
    ]
    test = f'cd {_HOME} && {python} -c "{_SELF_TEST}"'
    return " && ".join([*(made if options.libraries == INSTALL else ()), test])


def _run(target: str, revision: Revision, python: str) -> str:
    asked = f"--host 127.0.0.1 --port {{configuration:/port}} --name {target} --revision {revision.id}"
    return f"exec {python} -m modeldeploy.serving serve --bundle {_HOME}/bundle {asked}"


def deployment(group_arn: str, target: str, revision: Revision, limits: Limits) -> Json:
    """Write the deployment of a revision to its group of devices."""
    increase = {"numberOfSucceededThings": limits.grow_after}
    criterion = {
        "failureType": "ALL",
        "action": "CANCEL",
        "thresholdPercentage": limits.failed_percent,
        "minNumberOfExecutedThings": limits.failed_least,
    }
    return {
        "targetArn": group_arn,
        "deploymentName": f"{target} {revision.id}",
        "components": {names.component(target): {"componentVersion": names.version(target, revision)}},
        "deploymentPolicies": {
            "failureHandlingPolicy": "ROLLBACK",
            "componentUpdatePolicy": {"action": "NOTIFY_COMPONENTS", "timeoutInSeconds": 60},
        },
        "iotJobConfiguration": {
            "jobExecutionsRolloutConfig": {
                "exponentialRate": {
                    "baseRatePerMinute": limits.per_minute,
                    "incrementFactor": limits.factor,
                    "rateIncreaseCriteria": increase,
                },
                "maximumPerMinute": limits.most_per_minute,
            },
            "abortConfig": {"criteriaList": [criterion]},
            "timeoutConfig": {"inProgressTimeoutInMinutes": limits.minutes},
        },
        "tags": {names.TAG_TARGET: target, names.TAG_REVISION: revision.id},
    }


def dump(document: Mapping[str, Any]) -> bytes:
    """Write a document canonically."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
