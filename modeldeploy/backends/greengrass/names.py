"""Names in the account: all follow from content, none is drawn, so whoever repeats a step finds what the step made."""

from __future__ import annotations

from modeldeploy.backends.cloud.naming import digest, spec
from modeldeploy.values.serving import Revision

_PREFIX = "modeldeploy"
TAG_TARGET, TAG_REVISION, TAG_SPEC = f"{_PREFIX}:target", f"{_PREFIX}:revision", f"{_PREFIX}:spec"
_MILLION = 1_000_000
_PARTS = 3


def component(target: str) -> str:
    """Name the component of a target; its versions are the revisions."""
    return f"{_PREFIX}.{target}"


def version(target: str, revision: Revision) -> str:
    """Give the component version of a revision: numbers that follow from its content, for the nucleus takes no longer parts than six digits."""
    number = int(digest([target, revision.id, spec(revision)])[:12], 16)
    return f"1.{number // _MILLION % _MILLION}.{number % _MILLION}"


def group(target: str, revision: str = "") -> str:
    """Name the thing group of the devices that are to run a revision; neither name holds an underscore."""
    return f"{_PREFIX}_{target}_{revision}"


def parse(group_name: str) -> tuple[str, str] | None:
    """Read target and revision out of a group's name; None when it is not ours."""
    parts = group_name.split("_")
    return (parts[1], parts[2]) if len(parts) == _PARTS and parts[0] == _PREFIX and all(parts) else None


def place(target: str, revision: str = "") -> str:
    """Give the prefix in the bucket under which all of a target, or of one revision, lies."""
    return f"{_PREFIX}/edge/{target}/{f'{revision}/' if revision else ''}"
