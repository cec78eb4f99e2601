"""Which program stands for an environment: images are neither built nor pulled, processes are started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from modeldeploy.simulate.processes import MODEL_SERVER, PORT, Program

_HERE = Path(__file__).parent


# -P: the script's directory holds this package's modules, whose names an image does not know.
INFERENCE_SERVER = Program((sys.executable, "-P", str(_HERE / "inference_server.py"), PORT), library=False)
BATCH_WORKER = Program((sys.executable, "-P", str(_HERE / "batch_worker.py"), PORT), library=False)


@attrs.frozen
class Programs:
    """The programs of custom containers by image or by repository: those named here before the one that is known anyway."""

    known: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    def custom(self, image: str) -> Program | None:
        """Find the program of an image that has routes of its own; None when there is no such image."""
        repository = image.rpartition("@")[0] or image.partition(":")[0]
        for name in (image, repository, repository.rpartition("/")[2]):
            if name in self.known:
                return Program(self.known[name])
        return MODEL_SERVER if "modeldeploy" in repository else None
