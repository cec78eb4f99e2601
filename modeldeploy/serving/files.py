"""Files that nobody else may read, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modeldeploy.errors import IntegrityError, QuotaError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def write_file(path: Path, data: bytes) -> None:
    """Replace a file for good: whoever is killed, or loses power, afterwards finds the new one; readable by its owner alone."""
    replace_file(path, data)
    sync_directory(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file by way of a temporary one that has reached the disk; until ``sync_directory`` a loss of power may bring the old one back."""
    temporary = _written_beside(path, data)
    try:
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def create_file(path: Path, data: bytes) -> None:
    """Write a file unless there is one, also when another process is faster."""
    temporary = _written_beside(path, data)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def check_ours(path: Path, found: os.stat_result) -> None:
    """Raise IntegrityError when somebody else may write the file: what it says would then be theirs."""
    if os.name == "posix" and (found.st_uid not in {0, os.geteuid()} or found.st_mode & _WRITABLE_BY_OTHERS):
        import shlex

        message = f"{str(path)!r} can be written by others than you"
        raise IntegrityError(message, hint=f"chown it to yourself, and run: chmod 600 {shlex.quote(str(path))}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out meanwhile, by a lock file beside ``path``; nothing to hold on Windows."""
    with (path.parent / f".{path.name}.lock").open("ab") as lock:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _written_beside(path: Path, data: bytes) -> Path:
    import tempfile

    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise _unwritable(path, error) from error
    return Path(name)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory reach the disk."""
    # Windows cannot open directories and needs no such thing.
    if os.name == "posix":
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _unwritable(path: Path, error: OSError) -> QuotaError:
    return QuotaError(f"{str(path)!r} cannot be written: {error.strerror}", hint="free some space; nothing was changed")


def numbered(path: Path, number: int) -> Path:
    """Give the name of an older file; number 0 is the current one."""
    return path.with_name(f"{path.name}.{number}") if number else path


def rotate(path: Path, kept: int) -> None:
    """Let each file take the name of the one before it; the oldest goes."""
    for number in range(kept, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            numbered(path, number - 1).replace(numbered(path, number))
