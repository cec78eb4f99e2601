"""Names at the hub: all follow from content, none is drawn, so whoever repeats a step finds what the step made."""

from __future__ import annotations

import re

from modeldeploy.values.serving import WHOLE

_PREFIX = "modeldeploy"
LABEL_TARGET, LABEL_REVISION, LABEL_SPEC = f"{_PREFIX}.target", f"{_PREFIX}.revision", f"{_PREFIX}.spec"
TAG = _PREFIX
ENV_TARGET, ENV_REVISION = "MODELDEPLOY_TARGET", "MODELDEPLOY_REVISION"
ENV_MODEL, ENV_DIGEST = "MODELDEPLOY_MODEL", "MODELDEPLOY_DIGEST"
_SPEC_CHARS = 32


def configuration(target: str, revision: str) -> str:
    """Name the configuration of a revision; neither name holds an underscore."""
    return f"{_PREFIX}_{target}_{revision}"


def tag(target: str) -> str:
    """Name the tag that holds a device's place in a target; paths of the query language take no hyphens."""
    return target.replace("-", "_")


def members(devices: str, target: str) -> str:
    """Write the condition that a target's devices fulfil."""
    return devices.replace("{target}", target)


def condition(devices: str, target: str, bound: int) -> str:
    """Write the condition of those devices of a target whose place is below a bound; the last one is for devices without a place too."""
    inside = f"({members(devices, target)})"
    return inside if bound >= WHOLE else f"{inside} AND tags.{TAG}.{tag(target)} < {bound}"


def bound(text: str, target: str) -> int | None:
    """Read the bound out of such a condition; None when somebody wrote another one."""
    found = re.fullmatch(rf"\(.*\)(?: AND tags\.{TAG}\.{re.escape(tag(target))} < (\d{{1,3}}))?", text, re.DOTALL)
    return int(found[1] or WHOLE) if found else None


def short(spec: str) -> str:
    """Shorten the hash of a revision to what a label takes."""
    return spec[:_SPEC_CHARS]
