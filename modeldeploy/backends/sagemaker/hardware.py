"""Neutral hardware to instance types of SageMaker."""

from __future__ import annotations

from modeldeploy.backends.cloud.hardware import Instance, pick
from modeldeploy.values.serving import Hardware

# Smallest first within a kind; sizes as the EC2 families have them. A type that is not here is asked for by the option instance_type.
_TABLE = (
    Instance("ml.t2.medium", 2, 4),
    Instance("ml.m5.large", 2, 8),
    Instance("ml.c5.xlarge", 4, 8),
    Instance("ml.m5.xlarge", 4, 16),
    Instance("ml.c5.2xlarge", 8, 16),
    Instance("ml.m5.2xlarge", 8, 32),
    Instance("ml.m5.4xlarge", 16, 64),
    Instance("ml.m5.12xlarge", 48, 192),
    Instance("ml.m5.24xlarge", 96, 384),
    Instance("ml.g4dn.xlarge", 4, 16, "t4", 1),
    Instance("ml.g4dn.2xlarge", 8, 32, "t4", 1),
    Instance("ml.g4dn.4xlarge", 16, 64, "t4", 1),
    Instance("ml.g4dn.12xlarge", 48, 192, "t4", 4),
    Instance("ml.g5.xlarge", 4, 16, "a10g", 1),
    Instance("ml.g5.2xlarge", 8, 32, "a10g", 1),
    Instance("ml.g5.4xlarge", 16, 64, "a10g", 1),
    Instance("ml.g5.12xlarge", 48, 192, "a10g", 4),
    Instance("ml.g5.48xlarge", 192, 768, "a10g", 8),
    Instance("ml.p3.2xlarge", 8, 61, "v100", 1),
    Instance("ml.p4d.24xlarge", 96, 1152, "a100", 8),
    Instance("ml.p5.48xlarge", 192, 2048, "h100", 8),
)


def choose(hardware: Hardware, default: str) -> str:
    """Pick the smallest instance type that has what is asked for, or the default when nothing is."""
    return pick(hardware, _TABLE, default, remedy="options=SageMakerOptions(instance_type='ml.…')")
