"""A release: a bundle, what a device needs to run it, and a signed manifest over every byte of both.

::

    manifest.json     fleet, revision, sequence, requirements, and the digest of every file
    manifest.sig      signatures over exactly these bytes
    bundle/           the bundle, with the golden examples by which the device proves it
    wheels/ARCH/      where the release brings its own libraries

The same bundle, names and key give the same archive, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs
import orjson

from modeldeploy.edge.desired import hash_file
from modeldeploy.edge.keys import SigningKey, VerifyKey, check_signatures, write_signatures
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.archive import read_archive, write_archive
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST
from modeldeploy.packaging.manifest import FileEntry, check_path
from modeldeploy.values.codec import from_document, to_document

PURPOSE = "release"
SIGNATURES = "manifest.sig"
BUNDLE = "bundle"
WHEELS = "wheels"
_MAX_MANIFEST = 16 * 1024 * 1024


@attrs.frozen
class Release:
    """What the manifest of a release says."""

    fleet: str
    revision: str
    sequence: int
    """Which release of its fleet it is; rises with every one that is built."""
    digest: str
    """The digest of the bundle, ``sha256:...``."""
    model: str
    version: str
    flavour: str
    python: str
    """The version of Python that the bundle was packaged with."""
    requirements: tuple[str, ...]
    """What the bundle asks for, with exact versions."""
    files: Mapping[str, FileEntry]
    wheels: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]])
    """Names of the wheels that it brings, by architecture."""

    def to_bytes(self) -> bytes:
        """Write the manifest canonically: the same release is always the same bytes."""
        return orjson.dumps(to_document(self), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


def build(
    bundle: Bundle,
    *,
    fleet: str,
    revision: str,
    sequence: int,
    key: SigningKey | Collection[SigningKey],
    to: Path,
    wheels: Mapping[str, Path] | None = None,
) -> Path:
    """Write the signed archive of a release at ``to``; nothing is sent, and doing it again gives the same bytes.

    ``wheels`` names a directory of wheels for each architecture (``x86_64``, ``aarch64``) that the release brings along. ConfigurationError
    for a bundle with pickled code, which no device should run on anybody's word.
    """
    if bundle.manifest.pickled:
        message = f"{bundle.manifest.name} {bundle.manifest.version} holds pickled code, and devices run none"
        raise ConfigurationError(message, hint="convert the model to ONNX first: model.to_onnx(sample=rows)")
    bundle.verify()
    keys = (key,) if isinstance(key, SigningKey) else tuple(key)
    with tempfile.TemporaryDirectory(prefix="modeldeploy-") as folder:
        staged = Path(folder)
        brought = _stage(staged, bundle, wheels or {})
        release = attrs.evolve(
            _described(bundle, staged), fleet=fleet, revision=revision, sequence=sequence, wheels=brought
        )
        manifest = release.to_bytes()
        (staged / MANIFEST).write_bytes(manifest)
        (staged / SIGNATURES).write_bytes(write_signatures(PURPOSE, manifest, keys))
        return write_archive(staged, [MANIFEST, SIGNATURES, *release.files], Path(to))


def open_release(archive: Path, keys: Collection[VerifyKey], *, fleet: str, into: Path) -> Release:
    """Unpack a release into the new directory ``into`` and verify all of it; nothing is left there when it is refused.

    IntegrityError names the byte that was changed, the key that is not known here, or the fleet that it was made for.
    """
    read_archive(Path(archive), Path(into), check=lambda staged: _discard(check_release(staged, keys, fleet=fleet)))
    return check_release(Path(into), keys, fleet=fleet, files=False)


def check_release(directory: Path, keys: Collection[VerifyKey], *, fleet: str, files: bool = True) -> Release:
    """Verify an unpacked release: signature, fleet, and with ``files`` every byte; IntegrityError says what is wrong with it."""
    manifest = _read(directory, MANIFEST)
    check_signatures(PURPOSE, manifest, _read(directory, SIGNATURES), keys)
    try:
        release = from_document(Release, orjson.loads(manifest))
    except (orjson.JSONDecodeError, ConfigurationError) as error:
        message = f"the release in {str(directory)!r} is signed but cannot be read: {error}"
        raise IntegrityError(message, hint="it may be of a newer version; update modeldeploy on the device") from error
    if release.fleet != fleet:
        message = f"release {release.revision!r} was made for fleet {release.fleet!r}, this device belongs to {fleet!r}"
        raise IntegrityError(message, hint="point the device to its own fleet's store")
    if files:
        _check_files(directory, release)
        Bundle.open(directory / BUNDLE, expect=release.digest)
    return release


def _discard(_release: Release) -> None:
    """Be a check that gives nothing."""


# Building


def _stage(staged: Path, bundle: Bundle, wheels: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    for name in (MANIFEST, *bundle.manifest.files):
        _copy(bundle.path / name, staged / BUNDLE / name)
    brought = {}
    for architecture, directory in wheels.items():
        found = sorted(Path(directory).glob("*.whl"))
        if not found:
            message = f"there are no wheels for {architecture} in {str(directory)!r}"
            raise ConfigurationError(message, hint="fill it with modeldeploy.edge.wheels.resolve")
        for path in found:
            _copy(path, staged / check_path(f"{WHEELS}/{architecture}/{path.name}"))
        brought[architecture] = tuple(path.name for path in found)
    return brought


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)  # a wheel may have hundreds of megabytes
    except OSError:
        shutil.copyfile(source, target)


def _described(bundle: Bundle, staged: Path) -> Release:
    manifest = bundle.manifest
    return Release(
        fleet="",
        revision="",
        sequence=0,
        digest=bundle.digest,
        model=manifest.name,
        version=manifest.version,
        flavour=manifest.flavour,
        python=manifest.python,
        requirements=manifest.requirements,
        files={name: _entry(staged / name) for name in sorted(_files(staged))},
    )


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=hash_file(path), size=path.stat().st_size)


# Checking


def _check_files(directory: Path, release: Release) -> None:
    found = set(_files(directory)) - {MANIFEST, SIGNATURES}
    for name in sorted(found ^ release.files.keys()):
        what = "does not belong to it" if name in found else "is missing"
        message = f"file {name!r} of release {release.revision!r} {what}"
        raise IntegrityError(message, hint="it is damaged or was changed; it is fetched again")
    for name, entry in release.files.items():
        if not _is(directory / check_path(name), entry):
            message = f"file {name!r} of release {release.revision!r} does not have its recorded digest"
            raise IntegrityError(message, hint="it is damaged or was changed; it is fetched again")


def _is(path: Path, entry: FileEntry) -> bool:
    return not path.is_symlink() and path.stat().st_size == entry.size and hash_file(path) == entry.sha256


def _files(directory: Path) -> Iterator[str]:
    for root, _folders, names in os.walk(directory):
        for name in names:
            yield (Path(root) / name).relative_to(directory).as_posix()


def _read(directory: Path, name: str) -> bytes:
    path = directory / name
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            message = f"file {name!r} of a release is larger than {_MAX_MANIFEST} bytes"
            raise IntegrityError(message, hint="it is no release, or a hostile one")
        return path.read_bytes()
    except OSError as error:
        message = f"{str(directory)!r} is no release: {name} cannot be read ({error.strerror})"
        raise IntegrityError(message, hint="pass what modeldeploy.edge.release.build made") from error
