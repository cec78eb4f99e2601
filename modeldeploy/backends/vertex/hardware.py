"""Neutral hardware to machine types of Compute Engine, with the accelerators that go with them."""

from __future__ import annotations

import re

import attrs

from modeldeploy.backends.cloud.hardware import Instance, pick
from modeldeploy.backends.vertex.options import VertexOptions
from modeldeploy.values.serving import Hardware

_T4, _L4, _A100, _H100 = "NVIDIA_TESLA_T4", "NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_H100_80GB"
_KINDS = {"t4": _T4, "l4": _L4, "a100": _A100, "h100": _H100}
# Smallest first within a kind. T4s are put into an N1 machine; the other machines have their accelerators built in. A name with a plus sign is
# this table's own way to say both. A machine that is not here is asked for by the options machine_type and accelerator.
_TABLE = (
    Instance("e2-standard-2", 2, 8),
    Instance("e2-highcpu-4", 4, 4),
    Instance("e2-standard-4", 4, 16),
    Instance("e2-highcpu-8", 8, 8),
    Instance("e2-standard-8", 8, 32),
    Instance("e2-highmem-8", 8, 64),
    Instance("e2-standard-16", 16, 64),
    Instance("n2-standard-32", 32, 128),
    Instance("n2-highmem-32", 32, 256),
    Instance("n2-standard-64", 64, 256),
    Instance("n2-highmem-64", 64, 512),
    Instance("n1-standard-4+1", 4, 15, "t4", 1),
    Instance("n1-standard-8+1", 8, 30, "t4", 1),
    Instance("n1-standard-16+2", 16, 60, "t4", 2),
    Instance("n1-standard-32+4", 32, 120, "t4", 4),
    Instance("g2-standard-4+1", 4, 16, "l4", 1),
    Instance("g2-standard-8+1", 8, 32, "l4", 1),
    Instance("g2-standard-24+2", 24, 96, "l4", 2),
    Instance("g2-standard-48+4", 48, 192, "l4", 4),
    Instance("a2-highgpu-1g+1", 12, 85, "a100", 1),
    Instance("a2-highgpu-2g+2", 24, 170, "a100", 2),
    Instance("a2-highgpu-4g+4", 48, 340, "a100", 4),
    Instance("a2-highgpu-8g+8", 96, 680, "a100", 8),
    Instance("a3-highgpu-8g+8", 208, 1_872, "h100", 8),
)
_BY_NAME = {each.name: each for each in _TABLE}
MACHINE = re.compile(r"[a-z][a-z0-9]*-[a-z0-9-]+")


@attrs.frozen
class Machine:
    """A machine type with what is put into it."""

    type: str
    accelerator: str = ""
    accelerator_count: int = 0


def choose(hardware: Hardware, options: VertexOptions, default: str) -> Machine:
    """Give the machine that the options name, or the smallest that has what is asked for, or the default when nothing is."""
    if options.machine_type or options.accelerator:
        count = max(1, options.accelerator_count) if options.accelerator else 0
        return Machine(options.machine_type or default, options.accelerator, count)
    return _read(
        pick(hardware, _TABLE, default, remedy="options=VertexOptions(machine_type='n1-…', accelerator='NVIDIA_…')")
    )


def _read(name: str) -> Machine:
    found = _BY_NAME.get(name)
    machine_type, plus, _count = name.partition("+")
    if found is None or not plus:
        return Machine(machine_type)
    return Machine(machine_type, _KINDS[found.accelerator], found.accelerator_count)
