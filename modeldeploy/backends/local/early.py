"""What a deployment on this machine begins before the backend itself is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modeldeploy.backends.local.client import Control, idle_exit
from modeldeploy.backends.local.paths import Paths


def expect(home: Path, settings: Mapping[str, str], flavour: str) -> None:
    """Start the supervisor unless one answers, and have it load the libraries of a flavour."""
    Control(Paths(home.absolute()), idle_exit(settings)).begin(flavour)
