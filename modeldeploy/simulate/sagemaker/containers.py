"""A container: a real process that gets the extracted model, its environment and a port, and is asked over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.processes import Child, Program


class Container(Child):
    """One process; ``directory`` is its ``/opt/ml`` with the model in ``model``, and is removed when it stops."""

    def __init__(self, launcher: Launcher, directory: Path, log: Callable[[str], None]) -> None:
        super().__init__(launcher, directory, log, health="/ping")

    def start(self, program: Program, environment: Mapping[str, str]) -> None:
        """Start the process; whether it comes up is for ``wait`` to say."""
        # Where the public inference toolkit looks instead of /opt/ml; so does our model server.
        super().start(program, {"SAGEMAKER_BASE_DIR": str(self.directory), **environment})
