"""Neutral hardware to instance types by a table; what the table cannot give is refused with the option that can."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.serving import Hardware

_ANY_GPU = "gpu"


@attrs.frozen
class Instance:
    """An instance type with what it has."""

    name: str
    cpu: float
    memory_gb: float
    accelerator: str = ""
    accelerator_count: int = 0


def pick(hardware: Hardware, table: Iterable[Instance], default: str, *, remedy: str) -> str:
    """Pick the first instance type of the table that has what is asked for, or the default when nothing is."""
    if hardware == Hardware():
        return default
    fitting = [each for each in table if _fits(each, hardware)]
    if not fitting:
        message = f"no instance type of the table has {hardware}"
        accelerators = sorted({each.accelerator for each in table if each.accelerator} | {_ANY_GPU})
        raise ConfigurationError(message, hint=f"name one: {remedy}; known accelerators are {accelerators}")
    return fitting[0].name


def _fits(instance: Instance, wanted: Hardware) -> bool:
    kind = wanted.accelerator.lower()
    count = max(wanted.accelerator_count, 1 if kind else 0)
    right = bool(instance.accelerator) == bool(count) and kind in {"", _ANY_GPU, instance.accelerator}
    enough = instance.cpu >= wanted.cpu and instance.memory_gb >= wanted.memory_gb
    return right and enough and instance.accelerator_count >= count
