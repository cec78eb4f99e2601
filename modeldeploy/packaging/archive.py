"""Archives of a bundle: the same bytes every time, and an unpacker that believes nothing."""

from __future__ import annotations

import gzip
import os
import secrets
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError
from modeldeploy.packaging.manifest import check_path

MAX_FILES = 10_000
MAX_BYTES = 32 * 1024**3
_BLOCK = 1 << 20
_MAX_HEADER = 1 << 20


def write_archive(directory: Path, names: Sequence[str], to: Path) -> Path:
    """Write these files as a ``.tar.gz`` without times, owners or an order of their own; ``to`` appears whole or not at all."""
    temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            temporary.open("xb") as raw,
            # The name and time that gzip writes would differ each time.
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name in sorted(names):
                _add(tar, directory, check_path(name))
        temporary.replace(to)
    finally:
        temporary.unlink(missing_ok=True)
    return to


def _add(tar: tarfile.TarFile, directory: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = (directory / name).stat().st_size
    info.mode = 0o444
    with (directory / name).open("rb") as stream:
        tar.addfile(info, stream)


def read_archive(
    archive: Path, to: Path, *, check: Callable[[Path], None], max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES
) -> Path:
    """Unpack into a fresh directory beside ``to``, ``check`` it there, and only then give it its name.

    IntegrityError for links, devices, names that leave the directory, doubled names, or more than the limits.
    """
    if not archive.is_file():
        message = f"archive {str(archive)!r} does not exist"
        raise ConfigurationError(message, hint="pass the .tar.gz file that Model.archive() made")
    if to.exists():
        message = f"{str(to)!r} exists already"
        raise ConflictError(message, hint="unpack into a directory that does not exist yet")
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = to.with_name(f".{to.name}.{secrets.token_hex(8)}")
    fresh.mkdir(mode=0o700)
    try:
        _extract(archive, fresh, max_files, max_bytes)
        check(fresh)
        fresh.rename(to)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return to


def _extract(archive: Path, fresh: Path, max_files: int, max_bytes: int) -> None:
    seen: set[str] = set()
    left = max_bytes
    try:
        for count, (info, stream) in enumerate(_members(archive), 1):
            if count > max_files:
                _refuse(archive, f"holds more than {max_files} entries")
            # A file system that ignores case would let the second overwrite the first.
            if info.name.lower() in seen:
                _refuse(archive, f"holds {info.name!r} twice")
            seen.add(info.name.lower())
            left -= info.size
            if left < 0:
                _refuse(archive, f"holds more than {max_bytes} bytes")
            if stream is not None:
                _write(fresh, info.name, stream)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, OSError, ValueError) as error:
        message = f"archive {str(archive)!r} cannot be unpacked: {error}"
        raise IntegrityError(message, hint="it is damaged or no archive of a bundle; make it again") from error


class _Metered:
    """Reads what was unpacked; between two entries there may be only so much.

    What a header says of the name of its entry is read whole into memory, before anybody sees an entry that could be refused.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = _MAX_HEADER

    def allow(self, size: int) -> None:
        """Let an entry of this size be read, and the header of the next."""
        self._left = size + _MAX_HEADER

    def read(self, size: int) -> bytes:
        """Read on; IntegrityError beyond what is allowed."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            message = f"a header of the archive is larger than {_MAX_HEADER} bytes"
            raise IntegrityError(message, hint="it is no archive of a bundle, or a hostile one")
        return data


def _members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Give plain files with their content, and directories without; anything else is refused."""
    with gzip.open(archive, "rb") as unpacked:
        metered = _Metered(unpacked)
        with tarfile.open(fileobj=metered, mode="r|") as tar:  # type: ignore[call-overload]  # it only ever reads
            for info in tar:
                check_path(info.name)
                if info.isdir():
                    metered.allow(0)
                    yield info, None
                elif info.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not info.issparse():
                    metered.allow(info.size)
                    yield info, tar.extractfile(info)
                else:
                    message = f"entry {info.name!r} of the archive is not a plain file or directory"
                    raise IntegrityError(message, hint="a bundle holds no links or devices; make the archive again")


def _write(fresh: Path, name: str, stream: IO[bytes]) -> None:
    path = fresh / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o400
    )
    with os.fdopen(fd, "wb") as target:
        shutil.copyfileobj(stream, target, _BLOCK)


def _refuse(archive: Path, what: str) -> None:
    message = f"archive {str(archive)!r} {what}"
    raise IntegrityError(message, hint="it is no archive of a bundle, or a hostile one")
