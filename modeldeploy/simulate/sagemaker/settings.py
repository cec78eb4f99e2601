"""What a simulator was made with."""

from __future__ import annotations

from pathlib import Path

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.processes import Patience
from modeldeploy.simulate.sagemaker.faults import Faults
from modeldeploy.simulate.sagemaker.images import Images
from modeldeploy.simulate.sagemaker.signature import Credentials
from modeldeploy.simulate.sagemaker.site import Site
from modeldeploy.simulate.sagemaker.world import Timings

MEBIBYTE = 1024 * 1024


@attrs.frozen(kw_only=True)
class Settings:
    """Settings of a simulator; durations whose names end in ``_s`` are in seconds of this machine."""

    site: Site
    credentials: Credentials
    clock: Clock
    faults: Faults
    timings: Timings
    images: Images
    directory: Path
    """The containers' directories are made in it."""
    patience: Patience
    """How long a container may take to come up."""
    invocation_timeout_s: float
    """How long a container may take to answer."""
    max_body: int
    """The size of an invocation's body in bytes."""
    processes: int
    """How many processes stand for the instances of a variant at most."""
