"""A bundle: a directory with a manifest, golden examples and artifacts, named by the digest of its content."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.digest import MANIFEST, digest_of
from modeldeploy.values.schema import SCHEMA

if TYPE_CHECKING:
    from modeldeploy.packaging.manifest import FileEntry, Manifest
    from modeldeploy.values.model import ModelVersion

# What reads a manifest is imported with the first one that is read: whoever deploys a model of the store begins its processes before that.

_MAX_MANIFEST = 16 * 1024 * 1024
_BLOCK = 1 << 20
# No links, and no waiting for somebody to write into a pipe; Windows has neither flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Bundle:
    """A packaged model on this machine; its files are checked against ``digest`` before they are used."""

    def __init__(self, path: Path, digest: str, written: bytes) -> None:
        self.path = path
        self.digest = digest
        self.written = written
        """The manifest as it lies on the disk."""

    @classmethod
    def open(cls, path: Path, *, expect: str | None = None) -> Bundle:
        """Read the manifest in ``path``; IntegrityError when its digest is not the one expected."""
        bundle = cls(*_found(path, expect))
        _ = bundle.manifest  # what is wrong with it is told here
        return bundle

    @classmethod
    def recorded(cls, path: Path, digest: str) -> Bundle:
        """Open one whose manifest was read when its digest was recorded: only the digest is checked now, the rest is read when it is asked for."""
        bundle = cls(*_found(path, digest))
        flavour = _flavour_in(bundle.written)
        if flavour is None:
            return cls.open(path, expect=digest)
        bundle.flavour = flavour
        return bundle

    @cached_property
    def manifest(self) -> Manifest:
        """What the model is."""
        from modeldeploy.packaging.manifest import Manifest

        return Manifest.from_bytes(self.written)

    @cached_property
    def flavour(self) -> str:
        """The family of models that it belongs to."""
        return self.manifest.flavour

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bundle) and (self.path, self.digest) == (other.path, other.digest)

    def __hash__(self) -> int:
        return hash((self.path, self.digest))

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, {self.digest!r})"

    def verify(self) -> None:
        """Compare every file with its digest; IntegrityError names the one that differs, is missing or does not belong."""
        self.check_unchanged()
        found = {path.relative_to(self.path).as_posix() for path in _walk(self.path)} - {MANIFEST}
        for name in sorted(self.manifest.files.keys() - found):
            message = f"file {name!r} of the bundle {str(self.path)!r} is missing"
            raise IntegrityError(message, hint="package the model again")
        for name in sorted(found - self.manifest.files.keys()):
            message = f"file {name!r} does not belong to the bundle {str(self.path)!r}"
            raise IntegrityError(message, hint="remove it, or package the model again")
        for name, entry in self.manifest.files.items():
            self._compare(name, entry)

    def check_unchanged(self) -> None:
        """Raise IntegrityError when the manifest on disk is no longer the one that was opened."""
        if digest_of(_read_regular(self.path / MANIFEST, _MAX_MANIFEST)) != self.digest:
            message = f"file {MANIFEST!r} of the bundle {str(self.path)!r} was changed"
            raise IntegrityError(message, hint="package the model again")

    def read(self, name: str) -> bytes:
        """Read one file and return exactly the bytes that were checked."""
        from modeldeploy.packaging.manifest import FileEntry

        entry = self.manifest.files.get(name)
        if entry is None:
            message = f"the bundle {str(self.path)!r} has no file {name!r}"
            raise IntegrityError(message, hint="package the model again")
        data = _read_regular(self.path / name, entry.size)
        if FileEntry.of(data) != entry:
            self._refuse(name)
        return data

    def model_version(self) -> ModelVersion:
        """Give the identity by which backends know it."""
        from modeldeploy.values.model import ModelVersion

        manifest = self.manifest
        return ModelVersion(
            name=manifest.name,
            version=manifest.version,
            digest=self.digest,
            uri=str(self.path),
            flavour=manifest.flavour,
            signature=manifest.signature,
        )

    def archive(self, to: Path) -> Path:
        """Write it as a ``.tar.gz`` file at ``to``; the same bundle gives the same bytes."""
        from modeldeploy.packaging.archive import write_archive

        self.verify()
        return write_archive(self.path, [MANIFEST, *self.manifest.files], Path(to))

    @classmethod
    def unpack(cls, archive: Path, to: Path) -> Bundle:
        """Unpack an archive into the new directory ``to`` and verify it; nothing is left there when it is refused."""
        from modeldeploy.packaging.archive import read_archive

        read_archive(Path(archive), Path(to), check=lambda staged: cls.open(staged).verify())
        return cls.open(Path(to))

    def _compare(self, name: str, entry: FileEntry) -> None:
        with _open_regular(self.path / name) as stream:
            digest = hashlib.sha256()
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != entry.sha256:
            self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        message = f"file {name!r} of the bundle {str(self.path)!r} does not have its recorded digest"
        raise IntegrityError(message, hint="it is damaged or was changed; package the model again")


def _found(path: Path, expect: str | None) -> tuple[Path, str, bytes]:
    """Find a bundle: its place, its digest and its manifest as it is written."""
    path = Path(path).absolute()
    if not (path / MANIFEST).is_file():
        message = f"{str(path)!r} is not a bundle: it holds no {MANIFEST}"
        raise ConfigurationError(message, hint="pass a directory that Model(...) or Model.archive() made")
    data = _read_regular(path / MANIFEST, _MAX_MANIFEST)
    digest = digest_of(data)
    if expect is not None and digest != expect:
        message = f"the manifest in {str(path)!r} has digest {digest}, expected {expect}"
        raise IntegrityError(message, hint="the bundle was changed; package the model again")
    return path, digest, data


def _flavour_in(manifest: bytes) -> str | None:
    """Find the flavour that is written in a manifest; None in one of another schema, or in what is none."""
    try:
        document = json.loads(manifest)
        found = document["body"]["flavour"] if document["schema"] == SCHEMA else None
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a directory, readable by their owner and by nobody writable, and reach the disk."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o400)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())


def _walk(directory: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(directory):
        for folder in folders:
            if (Path(root) / folder).is_symlink():
                _refuse_link(Path(root) / folder)
        found += [Path(root) / name for name in files]
    return found


def _open_regular(path: Path) -> BinaryIO:
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        message = f"file {str(path)!r} of a bundle cannot be read: {error.strerror}"
        raise IntegrityError(message, hint="a bundle holds plain files only; package the model again") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        _refuse_link(path)
    return os.fdopen(fd, "rb")


def _read_regular(path: Path, limit: int) -> bytes:
    with _open_regular(path) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        message = f"file {str(path)!r} of a bundle is larger than {limit} bytes"
        raise IntegrityError(message, hint="it is damaged or was changed; package the model again")
    return data


def _refuse_link(path: Path) -> NoReturn:
    message = f"{str(path)!r} in a bundle is not a plain file or directory"
    raise IntegrityError(message, hint="a bundle holds no links or devices; package the model again")
