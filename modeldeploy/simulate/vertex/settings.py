"""What a simulator was made with."""

from __future__ import annotations

from pathlib import Path

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.vertex.faults import Faults
from modeldeploy.simulate.vertex.images import Images
from modeldeploy.simulate.vertex.names import Site
from modeldeploy.simulate.vertex.tls import Certificate
from modeldeploy.simulate.vertex.world import Timings


@attrs.frozen(kw_only=True)
class Settings:
    """Settings of a simulator; durations whose names end in ``_s`` are in seconds of this machine."""

    site: Site
    clock: Clock
    speed: float
    faults: Faults
    timings: Timings
    images: Images
    directory: Path
    """Objects and the directories of processes are made in it."""
    patience_s: float
    """How long a process may take to become well."""
    processes: int
    """How many processes stand for the replicas of a deployed model at most."""
    batch_processes: int
    """How many processes work on a batch prediction job at a time at most."""
    certificate: Certificate | None
    """Of the gRPC services when they listen over TLS, where a request must have a bearer token."""
    batch_files: str
    """How the files of a batch prediction job's output are called: ``practised`` or ``documented``."""
