"""Writes that survive a kill at any moment: whole or absent, never half.

A file is written under a temporary name, flushed to the disk, renamed, and its directory flushed. A process may die between any two of these.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import attrs
import orjson

from modeldeploy.errors import ConflictError


def flush(file: IO[bytes]) -> None:
    """Bring a file's bytes to the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Bring a directory's entries to the disk; Windows cannot and needs not."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(source: Path, target: Path) -> None:
    """Bring a complete file, whoever wrote it, to the disk and give it its name."""
    with source.open("rb+") as file:
        flush(file)
    rename(source, target)


def rename(source: Path, target: Path) -> None:
    """Give a complete file its name and make that durable."""
    source.replace(target)
    flush_directory(target.parent)


def write(path: Path, data: bytes) -> None:
    """Write a whole file durably; readers see the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            flush(file)
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def show(path: Path, data: bytes) -> None:
    """Replace a small file that only informs: atomic, but not flushed to the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Give the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Ledger:
    """An append-only file of JSON lines; a line that was torn by a kill or a full disk is cut off when it is opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = self._recover()

    def _recover(self) -> list[dict[str, Any]]:
        rows, good = _whole_rows(self.path)
        if self.path.exists() and self.path.stat().st_size > good:
            os.truncate(self.path, good)
        return rows

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """Read the rows without touching the file, which somebody else may be writing."""
        return _whole_rows(path)[0]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is on the disk when this returns."""
        new = not self.path.exists()
        with self.path.open("ab") as file:
            start = file.tell()
            try:
                file.write(orjson.dumps(row) + b"\n")
                flush(file)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(start)
                raise
        if new:
            flush_directory(self.path.parent)
        self.rows.append(dict(row))

    def last(self, kind: str) -> Mapping[str, Any] | None:
        """Find the newest row of a kind."""
        return last(self.rows, kind)


def _whole_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    good = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            rows.append(orjson.loads(line if line.endswith(b"\n") else b""))
        except orjson.JSONDecodeError:
            break
        good += len(line)
    return rows, good


def last(rows: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """Find the newest row of a kind."""
    return next((row for row in reversed(list(rows)) if row["kind"] == kind), None)


@attrs.frozen
class Identity:
    """Which file or directory this is; a rename keeps it, a rewrite changes it."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Identity | None:
        """Look at what lies there; None when there is nothing."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        # A directory's own size and time change with each file in it, and not with what the files hold.
        if path.is_dir():
            return cls(found.st_ino, 0, 0)
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


class Lease:
    """The right to run a job: an advisory lock that the kernel takes back when its holder dies, however it dies."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @classmethod
    def take(cls, path: Path) -> Lease:
        """Take it; ConflictError while somebody has it."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle)
        except OSError as error:
            os.close(handle)
            message = f"job {path.parent.name!r} is being scored by another process"
            hint = f"follow it with BatchJob.get({path.parent.name!r}).wait()"
            raise ConflictError(message, hint=hint) from error
        return cls(handle)

    @classmethod
    def held(cls, path: Path) -> bool:
        """Whether somebody has it now."""
        try:
            cls.take(path).release()
        except ConflictError:
            return True
        except FileNotFoundError:
            return False
        return False

    def sign(self) -> None:
        """Write down which process has it; true as long as it is held."""
        os.ftruncate(self.handle, 0)
        os.lseek(self.handle, 0, os.SEEK_SET)
        os.write(self.handle, str(os.getpid()).encode())

    @staticmethod
    def holder(path: Path) -> int | None:
        """Give the process that has it; None when nobody has, or has not signed yet."""
        signed = path.read_text() if Lease.held(path) else ""
        return int(signed) if signed.isdigit() else None

    def release(self) -> None:
        """Give it back; a process that inherited it keeps it."""
        os.close(self.handle)


def _lock(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def removing(path: Path) -> Iterator[Path]:
    """Give a path whose file is taken away again when writing it fails."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
