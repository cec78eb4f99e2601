"""Where the releases, the desired state and the reports of a fleet lie: a directory, a hub over HTTP, or an object store.

A store is trusted with nothing: what devices take from it is signed. Paths are plain relative names with slashes (``layout.py``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol, Self

from modeldeploy.edge.layout import REPORTS
from modeldeploy.errors import ConfigurationError, IntegrityError, QuotaError, UnavailableError
from modeldeploy.packaging.manifest import check_path

MAX_DOCUMENT = 16 * 1024 * 1024
PART = ".part"
Tick = Callable[[], None]


class Store(Protocol):
    """What a fleet needs of a place; every method may be repeated, and raises UnavailableError when the place cannot be reached."""

    def get(self, path: str) -> bytes | None:
        """Read a small document whole; None when there is none."""
        ...

    def get_to(self, path: str, file: Path, *, size: int | None = None, tick: Tick | None = None) -> bool:
        """Read into ``file``, going on where an earlier attempt stopped; False when there is nothing at ``path``.

        For what never changes under its name, as releases do. ``file`` appears when it is whole; until then ``file`` with ``.part`` has what
        came. At most ``size`` bytes are taken; ``tick`` is called after each block.
        """
        ...

    def put(self, path: str, data: bytes | Path) -> None:
        """Write a document, or a file, whole or not at all; what was there is replaced."""
        ...

    def list(self, prefix: str) -> Iterable[str]:
        """Name what there is below a prefix that ends with a slash, in order."""
        ...

    def modified(self, path: str) -> float | None:
        """Say when it was written, in seconds since 1970 by the store's clock; None when there is nothing."""
        ...

    def delete(self, path: str) -> None:
        """Remove it; nothing happens when there is none."""
        ...


def open_store(where: str | Path | Store, *, headers: Mapping[str, str] | None = None) -> Store:
    """Open a store by its address: a directory, ``http(s)://host/...``, or ``s3://bucket/prefix``; nothing is sent yet.

    ``headers`` go with every request of an HTTP store, such as ``{"Authorization": "Bearer ..."}``.
    """
    if not isinstance(where, str | Path):
        return where
    text = str(where)
    scheme, separator, _rest = text.partition("://")
    if not separator or isinstance(where, Path):
        return DirectoryStore(Path(where))
    if scheme in {"http", "https"}:
        from modeldeploy.edge.http_store import HttpStore

        return HttpStore(text, headers)
    if scheme == "s3":
        from modeldeploy.edge.s3_store import S3Store

        return S3Store(text)
    message = f"{text!r} is no store that is known here"
    raise ConfigurationError(message, hint="pass a directory, http(s)://host/path or s3://bucket/prefix")


class DirectoryStore:
    """A directory of this machine, or a share that all devices mount."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def get(self, path: str) -> bytes | None:
        """Read a small document whole."""
        with _reachable(self.root):
            try:
                with self._at(path).open("rb") as stream:
                    return bounded(stream.read(MAX_DOCUMENT + 1), path)
            except FileNotFoundError:
                self._check_there()
                return None

    def get_to(self, path: str, file: Path, *, size: int | None = None, tick: Tick | None = None) -> bool:
        """Copy on from where an earlier attempt stopped."""
        with _reachable(self.root):
            try:
                stream = self._at(path).open("rb")
            except FileNotFoundError:
                self._check_there()
                return False
            with stream, Partial(file, size) as partial:
                stream.seek(partial.have)
                while block := stream.read(Partial.BLOCK):
                    partial.write(block, tick)
            return True

    def put(self, path: str, data: bytes | Path) -> None:
        """Write beside, flush, and rename."""
        target = self._at(path)
        if path.startswith(REPORTS):
            # All that devices write: a share that is not mounted must not be filled below its mount point.
            self._check_there()
        with _reachable(self.root):
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            try:
                with temporary.open("xb") as stream:
                    _fill(stream, data)
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterable[str]:
        """Name the files below, in order; what is still being written is not among them."""
        check_path(prefix.rstrip("/"))
        folder = self.root / prefix
        found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def modified(self, path: str) -> float | None:
        """Read the time of the file."""
        with contextlib.suppress(FileNotFoundError):
            return self._at(path).stat().st_mtime
        return None

    def delete(self, path: str) -> None:
        """Remove the file."""
        self._at(path).unlink(missing_ok=True)

    def _at(self, path: str) -> Path:
        return self.root / check_path(path)

    def _check_there(self) -> None:
        # A share that is not mounted is no empty store.
        if not self.root.is_dir():
            message = f"the store {str(self.root)!r} is not there"
            raise UnavailableError(message, hint="mount it, or make the directory")


class Partial:
    """A file that grows beside its name and takes it when it is whole and on the disk; what came stays there when it breaks off."""

    BLOCK = 1 << 18

    def __init__(self, file: Path, size: int | None) -> None:
        self._file = Path(file)
        self._part = self._file.with_name(self._file.name + PART)
        self._size = size
        self.have = 0
        """Bytes that came already."""
        self.absent = False
        """Set when there is nothing to fetch: then no file appears."""

    def __enter__(self) -> Self:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stream = self._part.open("ab")
        self.have = self._stream.tell()
        if self._size is not None and self.have > self._size:
            self.restart()
        return self

    def restart(self) -> None:
        """Forget what came."""
        self._stream.truncate(0)
        self.have = 0

    def write(self, block: bytes, tick: Tick | None = None) -> None:
        """Take another block; IntegrityError when it is more than was announced."""
        self.have += len(block)
        if self._size is not None and self.have > self._size:
            self._part.unlink(missing_ok=True)
            message = f"{self._file.name!r} is larger than the {self._size} bytes that were announced"
            raise IntegrityError(message, hint="something else lies in its place; publish it again")
        with full_disk(self._file):
            self._stream.write(block)
        if tick is not None:
            tick()

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        with full_disk(self._file), self._stream:
            self._stream.flush()
            if kind is None:
                os.fsync(self._stream.fileno())
        if self.absent:
            self._part.unlink()
        elif kind is None:
            self._part.replace(self._file)


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Say of a full disk that it is full; QuotaError."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        message = f"no space for {path.name!r} in {str(path.parent)!r}: {error.strerror}"
        raise QuotaError(message, hint="free some space on this disk; what came already is kept") from error


def bounded(data: bytes, path: str) -> bytes:
    """Refuse a document that is too large to be one."""
    if len(data) > MAX_DOCUMENT:
        message = f"{path!r} in the store is larger than {MAX_DOCUMENT} bytes"
        raise UnavailableError(message, hint="something else lies in its place; publish it again")
    return data


def _fill(stream: IO[bytes], data: bytes | Path) -> None:
    if isinstance(data, bytes):
        stream.write(data)
    else:
        with data.open("rb") as source:
            shutil.copyfileobj(source, stream)


@contextlib.contextmanager
def _reachable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"the store {str(root)!r} cannot be used: {error.strerror or error}"
        raise UnavailableError(message, hint="look at its rights, its disk and its mount") from error
