"""Neutral hardware to virtual machine sizes of Azure ML."""

from __future__ import annotations

from modeldeploy.backends.cloud.hardware import Instance, pick
from modeldeploy.values.serving import Hardware

# Smallest first within a kind; sizes as Azure's families have them. A size that is not here is asked for by the option instance_type.
_TABLE = (
    Instance("Standard_DS2_v2", 2, 7),
    Instance("Standard_F4s_v2", 4, 8),
    Instance("Standard_DS3_v2", 4, 14),
    Instance("Standard_F8s_v2", 8, 16),
    Instance("Standard_DS4_v2", 8, 28),
    Instance("Standard_DS5_v2", 16, 56),
    Instance("Standard_E16s_v3", 16, 128),
    Instance("Standard_F72s_v2", 72, 144),
    Instance("Standard_E64s_v3", 64, 432),
    Instance("Standard_NC4as_T4_v3", 4, 28, "t4", 1),
    Instance("Standard_NC8as_T4_v3", 8, 56, "t4", 1),
    Instance("Standard_NC64as_T4_v3", 64, 440, "t4", 4),
    Instance("Standard_NC6s_v3", 6, 112, "v100", 1),
    Instance("Standard_NC24s_v3", 24, 448, "v100", 4),
    Instance("Standard_NC24ads_A100_v4", 24, 220, "a100", 1),
    Instance("Standard_NC96ads_A100_v4", 96, 880, "a100", 4),
    Instance("Standard_ND96asr_v4", 96, 900, "a100", 8),
)


def choose(hardware: Hardware, default: str) -> str:
    """Pick the smallest size that has what is asked for, or the default when nothing is."""
    return pick(hardware, _TABLE, default, remedy="options=AzureMLOptions(instance_type='Standard_…')")
