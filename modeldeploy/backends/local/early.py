"""What a deployment or a batch job on this machine begins before the backend itself is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path


def expect(home: Path, settings: Mapping[str, str], flavour: str) -> None:
    """Start the supervisor unless one answers, and have it load the libraries of a flavour."""
    from modeldeploy.backends.local.client import Control, idle_exit
    from modeldeploy.backends.local.paths import Paths

    Control(Paths(home.absolute()), idle_exit(settings)).begin(flavour)


def job_expected(workers: int) -> AbstractContextManager[None]:
    """Start the process that will run a job; it ends with the context unless a job took it."""
    from modeldeploy.backends.local import runners

    return runners.expected(workers)
