"""A conversion in a process of its own, which finds the pinned packages first.

The estimator was fitted in the calling process and goes there as a pickle in a private directory: code that the user runs anyway.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from modeldeploy.convert import environment, sklearn
from modeldeploy.convert.graphs import Raw
from modeldeploy.convert.layout import Layout
from modeldeploy.errors import ConversionError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import pickles

TIMEOUT_S = 600.0
"""Seconds that a conversion may take; a forest of a hundred deep trees takes about twenty."""
_TASK, _MODEL, _REPORT = "task.pkl", "model.onnx", "report.json"
_SHOWN = 1_000


def convert(estimator: Any, layout: Layout, method: str, *, double: bool, place: Path) -> Raw:
    """Convert with the packages in ``place`` first; ConversionError says what the converter said, or how the process ended."""
    with tempfile.TemporaryDirectory(prefix="modeldeploy-") as name:
        folder = Path(name)
        (folder / _TASK).write_bytes(pickles.dumps((estimator, layout, method, double, environment.PIN)))
        _run(folder, place)
        report = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
        if "message" in report:
            raise ConversionError(report["message"], hint=report["hint"])
        return Raw((folder / _MODEL).read_bytes(), layout.container, report["sources"], report["inputs"])


def _run(folder: Path, place: Path) -> None:
    command = [sys.executable, "-m", "modeldeploy.convert.remote", str(folder), str(place)]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment.environ(place), capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        message = f"the conversion did not end within {TIMEOUT_S:.0f} s"
        raise ConversionError(message, hint="fit fewer or smaller trees") from error
    if not (folder / _REPORT).is_file():
        message = f"the conversion's own process ended with status {done.returncode}"
        raise ConversionError(message, hint=done.stderr.decode(errors="replace")[-_SHOWN:] or None)


def _perform(folder: Path) -> dict[str, Any]:
    estimator, layout, method, double, pin = pickles.loads((folder / _TASK).read_bytes())
    _check(pin)
    raw = sklearn.convert(estimator, layout, method, double=double)
    (folder / _MODEL).write_bytes(raw.data)
    return {"sources": dict(raw.sources), "inputs": dict(raw.inputs)}


def _check(pin: str) -> None:
    """Another package called google may hide the pinned one."""
    found = need("google.protobuf").__version__
    if f"protobuf=={found}" != pin:
        message = f"the conversion's own process found protobuf {found} instead of {pin}"
        raise ConversionError(message, hint=f"run: pip install '{pin}'")


def _prefer(place: Path) -> None:
    """Look for what is called google in ``place`` first: another package's ``nspkg.pth`` may have said elsewhere before the path was read."""
    settled = sys.modules.get("google")
    if settled is not None:
        settled.__path__ = [str(place / "google"), *settled.__path__]


def _main(folder: Path, place: Path) -> None:
    _prefer(place)
    try:
        report = _perform(folder)
    except ConversionError as error:
        report = {"message": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - whatever unpickling raises is the report
        message = f"the estimator cannot be read in the conversion's own process: {type(error).__name__}: {error}"
        report = {"message": message, "hint": "keep what it needs in installed packages or in the notebook itself"}
    (folder / _REPORT).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
