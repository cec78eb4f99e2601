"""What a device downloads: the bundle, the part of this library that serves it, and what both need.

::

    bundle/...          the bundle as it is, with the golden examples by which the device proves it
    modeldeploy/...     the part of this library that loads and serves a bundle
    requirements.txt    what has to be installed

A zip archive, for the nucleus unpacks no other kind, and the same bytes every time.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from modeldeploy.backends.cloud import library
from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST

FILE = "model.zip"
FOLDER = "model"
"""The nucleus unpacks an archive into a folder of its name."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100444 << 16
_BLOCK = 1 << 20


def refuse_pickled(bundle: Bundle) -> None:
    """Refuse pickled code, which no device should run on anybody's word."""
    if bundle.manifest.pickled:
        message = f"{bundle.manifest.name} {bundle.manifest.version} holds pickled code, and devices run none"
        raise ConfigurationError(message, hint="convert the model to ONNX first: model.to_onnx(sample=rows)")


def build(bundle: Bundle, to: Path) -> Path:
    """Write the archive of a bundle; it appears whole or not at all, and again with the same bytes."""
    bundle.verify()
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(f".{to.name}.part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _members(bundle):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.compress_type = _MODE, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return temporary.replace(to)


def _members(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    for name in sorted((MANIFEST, *bundle.manifest.files)):
        yield f"bundle/{name}", (bundle.path / name).read_bytes()
    for name, data in sorted(library.sources().items()):
        yield name, data
    yield "requirements.txt", "".join(f"{text}\n" for text in library.needed(bundle)).encode()


def sha256(path: Path) -> str:
    """Give the digest of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
