"""AWS IoT Greengrass v2: ``from modeldeploy.backends.greengrass import Greengrass``."""

from __future__ import annotations

from modeldeploy.backends.greengrass.backend import Greengrass
from modeldeploy.backends.greengrass.options import GreengrassOptions

__all__ = ["Greengrass", "GreengrassOptions"]
