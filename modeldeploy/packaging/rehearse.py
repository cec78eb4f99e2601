"""Compare what a packaged model answers with what it answered before; a pickled one in a process of its own.

A controlling process never unpickles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from modeldeploy.errors import ConfigurationError, ModelDeployError, PredictionError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.loading import LoadedModel, load

TIMEOUT = 300.0
"""Seconds that loading and answering the example may take."""


def compare(model: LoadedModel) -> None:
    """Raise ConfigurationError when a model read from its files does not answer its golden inputs as recorded."""
    try:
        answers = model.predict({key: array.copy() for key, array in model.golden.inputs.items()})
    except PredictionError as error:
        message = f"the packaged model cannot answer its example: {error.message}"
        raise ConfigurationError(message, hint="the cause tells where it fails when it is loaded again") from error
    differences = model.golden.differences(answers)
    if differences:
        message = f"the packaged model does not answer as the model in memory: {differences[0]}"
        hint = "its format loses something, or it does not give the same answer twice; set its random_state, or wrap it in a function"
        raise ConfigurationError(message, hint=hint)


def rehearse(directory: Path) -> None:
    """Let a fresh process load the bundle and compare its answers with the golden ones; ConfigurationError says what differs."""
    _run("compare", directory)


def answer(directory: Path) -> Golden:
    """Let a fresh process load the bundle and answer its golden inputs; ConfigurationError says why it could not."""
    return Golden.from_bytes(_run("answer", directory).encode())


def _run(task: str, directory: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="modeldeploy-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "modeldeploy.packaging.rehearse", task, str(directory), str(report)]
        # A worker has neither the notebook's folder nor its memory; the rehearsal has the same to be worth something.
        environ = {**os.environ, "PYTHONSAFEPATH": "1"}
        try:
            done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired as error:
            message = f"the packaged model did not answer its example within {TIMEOUT:.0f} s"
            raise ConfigurationError(message, hint="pass a smaller example") from error
        if not report.is_file():
            message = f"the packaged model cannot be loaded: its process ended with status {done.returncode}"
            raise ConfigurationError(message, hint=done.stderr.decode(errors="replace")[-_SHOWN:] or None)
        outcome = json.loads(report.read_text(encoding="utf-8"))
    if "message" in outcome:
        raise ConfigurationError(str(outcome["message"]), hint=outcome["hint"])
    return str(outcome["answer"])


_SHOWN = 2_000


def _perform(task: str, directory: Path) -> str:
    bundle = Bundle.open(directory)
    model = load(bundle, trust={bundle.digest})
    if task == "compare":
        compare(model)
        return ""
    return Golden(model.golden.inputs, model.answer(model.golden.inputs)).to_bytes().decode()


def _main(task: str, directory: str, report: str) -> None:
    try:
        outcome = {"answer": _perform(task, Path(directory))}
    except ModelDeployError as error:
        outcome = {"message": error.message, "hint": error.hint or ""}
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises is the report
        hint = "import what it needs inside the function, or install it where the model is served"
        outcome = {"message": f"the packaged model cannot be loaded: {type(error).__name__}: {error}", "hint": hint}
    Path(report).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
