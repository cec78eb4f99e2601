"""Optional packages: imported when needed, with the exact pip command when missing."""

from __future__ import annotations

import importlib
import os
from typing import Any

from modeldeploy.errors import MissingDependencyError

# module -> the extra that brings it
_EXTRAS = {
    "cloudpickle": "sklearn",
    "cryptography": "edge",
    "joblib": "sklearn",
    "lightgbm": "lightgbm",
    "matplotlib": "plot",
    "model_signing": "model-signing",
    "onnx": "convert",
    "onnxmltools": "convert",
    "onnxruntime": "onnx",
    "onnxscript": "convert",
    "pyarrow": "batch",
    "safetensors": "torch",
    "scipy": "sklearn",
    "skl2onnx": "convert",
    "skops": "sklearn",
    "sklearn": "sklearn",
    "torch": "torch",
    "xgboost": "xgboost",
}
# module -> the distribution that brings it, where there is no extra
_DISTRIBUTIONS = {"yaml": "pyyaml"}

QUIET = "ORT_DISABLE_TELEMETRY"
"""Heeded by onnxruntime when it is first imported, which its converters may do by themselves; later is too late (onnxruntime 1.31)."""


def need(module: str) -> Any:
    """Import ``module``, or raise MissingDependencyError with the command that installs it."""
    if "onnx" in module:
        os.environ.setdefault(QUIET, "1")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            root = error.name.partition(".")[0]
        message = f"{root!r} is not installed"
        raise MissingDependencyError(message, hint=_command(root)) from error


def _command(root: str) -> str:
    wanted = f"modeldeploy[{_EXTRAS[root]}]" if root in _EXTRAS else _DISTRIBUTIONS.get(root, root)
    return f"run: pip install '{wanted}'"
