"""What a simulator was made with."""

from __future__ import annotations

from pathlib import Path

import attrs

from modeldeploy.simulate.azureml.elsewhere import Account
from modeldeploy.simulate.azureml.faults import Faults
from modeldeploy.simulate.azureml.programs import Programs
from modeldeploy.simulate.azureml.world import Site, Timings
from modeldeploy.simulate.clock import Clock


@attrs.frozen(kw_only=True)
class Settings:
    """Settings of a simulator; durations whose names end in ``_s`` are in seconds of this machine."""

    site: Site
    clock: Clock
    speed: float
    faults: Faults
    timings: Timings
    programs: Programs
    directory: Path
    """Blobs and the directories of processes are made in it."""
    patience_s: float
    """How long a process may take to become ready."""
    processes: int
    """How many processes stand for the instances of a deployment at most."""
    batch_processes: int
    """How many processes work on a batch job at a time at most."""
    storage: Account | None
    """An account that lies elsewhere; the simulator's own when there is none."""
