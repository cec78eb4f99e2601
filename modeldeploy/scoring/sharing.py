"""How the cores are shared: threads of one process for models that compute outside of Python, processes for the others."""

from __future__ import annotations

import os
from pathlib import Path

from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.manifest import Manifest
from modeldeploy.scoring.launch import Shape
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType

LARGE = 16 << 20
"""Bytes of input for each seat from which on there will most likely be a part for it."""
THREADS = 4
"""The most threads in one process: what is left in Python between two calls of the model is done by one of them at a time."""
_NATIVE = frozenset({"lightgbm", "onnx", "sklearn", "torch", "xgboost"})


def threads(spec: BatchSpec, seats: int) -> int:
    """Give how many of the ``seats`` that score at the same time may be threads of one process."""
    return min(THREADS, seats) if _computes_natively(_manifest(spec)) else 1


def most(spec: BatchSpec) -> int:
    """Give how many parts of a large job are scored at the same time."""
    return spec.workers or cores()


def first(spec: BatchSpec) -> Shape | None:
    """Give the shape of the worker that a large job begins with; None for a small one, whose parts decide."""
    seats = most(spec)
    return Shape(threads(spec, seats), share(seats)) if is_large(spec) else None


def is_large(spec: BatchSpec) -> bool:
    """Whether there will most likely be a part for each seat. What is missing is named when the job is planned."""
    there = (path for path in map(Path, spec.source) if path.exists())
    return sum(path.stat().st_size for path in there) >= most(spec) * LARGE


def share(seats: int) -> int:
    """Give how many threads the model's own library may use, where so many ``seats`` call it."""
    return max(1, cores() // seats)


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _manifest(spec: BatchSpec) -> Manifest:
    return Bundle.open(Path(spec.model.uri), expect=spec.model.digest).manifest


def _computes_natively(manifest: Manifest) -> bool:
    """Whether calls of the model let other threads run: numbers in, arrays through libraries that release the interpreter's lock.

    Pickled estimators hold code of the user's own, which most likely does not.
    """
    numbers = all(field.dtype is not DType.STRING for field in manifest.signature.inputs)
    return manifest.flavour in _NATIVE and not manifest.pickled and manifest.container != "records" and numbers
