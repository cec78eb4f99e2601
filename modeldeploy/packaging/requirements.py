"""What a bundle needs to run: its direct distributions with exact versions, and the version of Python."""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from collections.abc import Collection, Iterator, Mapping

from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.manifest import Manifest

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEPARATORS = re.compile(r"[-_.]+")
_LEFT = ".dist-info"
# These modules are brought by more than one distribution, or by one whose metadata does not name them.
_KNOWN = {"sklearn": "scikit-learn", "yaml": "pyyaml"}


def of_modules(modules: Collection[str]) -> tuple[str, ...]:
    """Name the installed distributions that bring these top-level modules, pinned: ``numpy==2.1.0``."""
    from importlib.metadata import version

    names = {name for module in modules for name in _distributions(module)}
    return tuple(sorted(f"{name}=={version(name)}" for name in names))


def merge(found: tuple[str, ...], given: Collection[str]) -> tuple[str, ...]:
    """Add requirements that the user gives; one for the same distribution wins over the one found."""
    own = {_name(text): text.strip() for text in given}
    return tuple(sorted({**{_name(text): text for text in found}, **own}.values()))


def mismatches(manifest: Manifest) -> tuple[str, ...]:
    """Say how the environment differs from what the manifest asks for; empty when it fits."""
    found = [text for requirement in manifest.requirements if (text := _mismatch(requirement))]
    here = ".".join(platform.python_version_tuple()[:2])
    if here != ".".join(manifest.python.split(".")[:2]):
        found.append(f"python {manifest.python} is required, {platform.python_version()} runs")
    return tuple(found)


def _mismatch(text: str) -> str | None:
    name, pinned, version = text.partition("==")
    # What packaging writes, in an environment like its own: nothing to parse, whose import takes longer than all the rest.
    if pinned and _PLAIN.fullmatch(name) and (_on_the_path(name) or _installed(name)) == version:
        return None
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    installed = _installed(requirement.name)
    if installed is None:
        return f"{text} is required, {requirement.name} is not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    return f"{text} is required, {installed} is installed"


def _on_the_path(name: str) -> str | None:
    """Read a version from the name of the directory that an installer left; None where it is not as simple as that.

    It is the one that ``importlib.metadata`` finds, whose import takes longer than all the rest.
    """
    wanted = _normal(name)
    for place in sys.path:
        found = [version for each, version in _left_in(place) if each == wanted]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _left_in(place: str) -> Iterator[tuple[str, str]]:
    try:
        names = os.listdir(place or ".")  # noqa: PTH208 - names only
    except OSError:  # an archive, or nothing
        return
    for left in names:
        if left.endswith(_LEFT):
            name, _, version = left.removesuffix(_LEFT).partition("-")
            yield _normal(name), version


def _normal(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()


def _installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _name(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        return canonicalize_name(Requirement(text).name)
    except InvalidRequirement as error:
        message = f"requirement {text!r} cannot be read: {error}"
        raise ConfigurationError(message, hint="write it as for pip, such as 'numpy==2.1.0'") from error


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    from importlib.metadata import packages_distributions

    return packages_distributions()


def _distributions(module: str) -> list[str]:
    if module in _KNOWN:
        return [_KNOWN[module]]
    return sorted({name.lower() for name in _direct(module)})[:1]


def _direct(module: str) -> list[str]:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        # Most modules are named like their distribution; asking for one is far cheaper than reading all of them.
        return [distribution(module).metadata["Name"]]
    except PackageNotFoundError:
        return _packages().get(module, [])
