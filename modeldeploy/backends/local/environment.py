"""The environment of the processes that we start."""

from __future__ import annotations

import os
from pathlib import Path

import modeldeploy

_THREAD_LIMITS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


# Bodies and batches are freed and wanted again with each frame. The C library of Linux would give back to the system what is larger than
# 128 KiB each time, which then clears every page anew.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}

API_KEY = "MODELDEPLOY_LOCAL_API_KEY"
"""For whoever calls endpoints; no process that serves them, and no model in it, has any use for it."""


def of_process(threads: int) -> dict[str, str]:
    """Give the environment of a process of ours: bounded threads, unbuffered output, no telemetry, this very package, memory kept."""
    limits = dict.fromkeys(_THREAD_LIMITS, str(threads))
    return {
        **_KEEP_MEMORY,
        **inherited(),
        **checkout(),
        **limits,
        "PYTHONUNBUFFERED": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def inherited() -> dict[str, str]:
    """Give this process' own environment without what is for callers only."""
    return {name: value for name, value in os.environ.items() if name != API_KEY}


def checkout() -> dict[str, str]:
    """Tell a process where this package lies when it is a source tree that is not installed.

    An installed one is found by itself; naming its directory would mix two environments when a revision has another interpreter.
    """
    place = Path(modeldeploy.__file__).parent.parent
    if place.name in {"site-packages", "dist-packages"}:
        return {}
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join([str(place), *(each for each in path if each and each != str(place))])}
