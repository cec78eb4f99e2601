"""Directories of simulators: made for each, gone with it, and swept up after those that were killed.

Whoever uses one holds a lock on a file in it, which the kernel lets go of however the process ends. A number of a process would not do: in
another container that shares the directory the same number is somebody else's, or nobody's.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".in-use"


def place(within: Path, prefix: str, stack: contextlib.ExitStack) -> Path:
    """Make a directory that is removed when the stack is left."""
    within.mkdir(parents=True, exist_ok=True)
    _sweep(within, prefix)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        stack.enter_context(_locked(directory / _LOCK))
    return directory


def _sweep(within: Path, prefix: str) -> None:
    """Remove what simulators left that were killed; one that is just being made has no lock yet and is left alone."""
    for path in within.glob(f"{prefix}*/{_LOCK}"):
        with contextlib.suppress(OSError), _locked(path):
            shutil.rmtree(path.parent, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a directory; OSError when somebody else does, or where there are no such locks."""
    with path.open("w") as file:
        _lock(file.fileno())
        yield


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError as error:  # Windows: nothing is swept up there
        raise OSError(str(error)) from error
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
