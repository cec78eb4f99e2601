"""Directories of simulators: made for each, gone with it, and swept up after those that were killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


def place(within: Path, prefix: str, stack: contextlib.ExitStack) -> Path:
    """Make a directory that is removed when the stack is left."""
    within.mkdir(parents=True, exist_ok=True)
    _sweep(within, prefix)
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=within))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _sweep(within: Path, prefix: str) -> None:
    """Remove what simulators left that were killed."""
    for path in within.glob(f"{prefix}*-*"):
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if owner.isdecimal() and not _lives(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere signal 0 is not harmless
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
