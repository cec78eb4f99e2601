"""What runs on the emulated device: proves each release, predicts the rows beside it, and says what it saw as one line of JSON."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from pathlib import Path

import numpy as np

from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.release import open_release
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.signature import check
from modeldeploy.serving.boot import boot


def network() -> str:
    """Try to reach another machine."""
    try:
        with socket.create_connection(("192.0.2.1", 80), timeout=5):
            return "reached"
    except OSError as error:
        return os.strerror(error.errno or 0)


def main() -> None:
    key = VerifyKey.load(Path("/fleet.pub.pem"))
    seen = {}
    for archive in sorted(Path("/releases").glob("*.tar.gz")):
        name = archive.name.removesuffix(".tar.gz")
        open_release(archive, [key], fleet="cameras", into=Path("/opened") / name)
        bundle = Path("/opened") / name / "bundle"
        boot(bundle)  # the self-test: its golden examples within the tolerance
        model = load(Bundle.open(bundle))
        rows = np.load(f"/releases/{name}.rows.npy")
        (field,) = model.signature.inputs
        began = time.perf_counter()
        outputs = model.predict(check(model.signature, {field.name: rows}))
        seconds = time.perf_counter() - began
        np.savez(f"/opened/{name}.npz", **outputs)
        seen[name] = {"outputs": sorted(outputs), "seconds": seconds}
    left = [str(path) for path in Path("/home").rglob("*")]
    facts = {"machine": platform.machine(), "python": platform.python_version(), "network": network(), "home": left}
    sys.stdout.write(json.dumps({**facts, "models": seen}) + "\n")


if __name__ == "__main__":
    main()
