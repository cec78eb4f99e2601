"""The pinned protobuf that some converters need, kept beside the models and never installed into the user's own environment.

skl2onnx 1.20 gives truth values where ONNX asks for whole numbers when it converts histogram-based gradient boosting; protobuf 7 refuses
them, protobuf 6 does not. So such a conversion runs in a process that finds protobuf 6 first, with every other package the user's own: an
estimator is read by the very version of scikit-learn that fitted it.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeldeploy.convert.layout import parts
from modeldeploy.errors import ConversionError

PIN = "protobuf==6.33.6"
_FIRST_TOO_NEW = 7
_TIMEOUT_S = 300.0
_SHOWN = 600
_NEEDS = "HistGradientBoosting"


def needs_pin(estimator: Any) -> bool:
    """Whether the protobuf that is installed is too new to convert this estimator."""
    named = any(type(part).__name__.startswith(_NEEDS) for part in parts(estimator))
    return named and int(_installed().partition(".")[0]) >= _FIRST_TOO_NEW


def _installed() -> str:
    try:
        return importlib.metadata.version("protobuf")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # then onnx is not installed either, which the converter says


def pinned(home: Path) -> Path:
    """Give the directory that holds the pinned protobuf, made once by pip with the user's own settings; else ConversionError says the command."""
    name = f"{PIN.replace('==', '-')}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    target = home / "environments" / name
    if target.is_dir():
        return target
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = target.with_name(f".{name}.{secrets.token_hex(4)}")
    try:
        _install(staged, target)
        _publish(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _publish(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir():  # another process was faster otherwise
            raise


def _install(staged: Path, target: Path) -> None:
    command = _command(staged)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        _refuse(target, str(error), error)
    if done.returncode:
        _refuse(target, (done.stderr or done.stdout).strip()[-_SHOWN:])


def _command(target: Path) -> Sequence[str]:
    """Say how it is installed: by this interpreter's pip, or by uv where there is none."""
    options = ["install", "--no-deps", "--target", str(target), PIN]
    uv = shutil.which("uv")
    if uv is not None and not _has_pip():
        return [uv, "pip", *options, "--python", sys.executable]
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *options]


def _has_pip() -> bool:
    import importlib.util

    return importlib.util.find_spec("pip") is not None


def _refuse(target: Path, said: str, error: BaseException | None = None) -> Any:
    message = f"this conversion needs {PIN} in a directory of its own, which could not be made: {said}"
    hint = f"run: {shlex.join(_command(target))}"
    raise ConversionError(message, hint=hint) from error


def environ(place: Path) -> dict[str, str]:
    """Give the environment of a process that finds the pinned packages first, then everything that this one finds."""
    paths = [str(place), *(path for path in sys.path if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
