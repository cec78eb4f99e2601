"""Libraries that a release brings along: unpacked beside its slot, for a server in an interpreter of its own."""

from __future__ import annotations

import platform
from pathlib import Path

from modeldeploy.edge.release import WHEELS


def unpack(release: Path, site: Path) -> tuple[Path, ...]:
    """Unpack the wheels for this machine that lie in a verified release; gives where, or nothing when there are none."""
    wheels = sorted((release / WHEELS / platform.machine()).glob("*.whl"))
    if not wheels:
        return ()
    from modeldeploy.edge.wheels import install

    return (install(wheels, site),)
