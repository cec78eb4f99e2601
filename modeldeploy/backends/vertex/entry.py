"""What a deployed model runs: a public Python image, started so that it fetches the bundle, installs what is missing, and serves.

::

    bundle/              the model, file by file
    modeldeploy.zip      the part of this library that loads and serves a bundle, as source
    requirements.txt     the versions that the model was packaged with

These lie in the bucket under a name that follows from their content. Google's own prediction images take a ``model.joblib`` or ``model.pkl``
and nothing else, so none of them can hold the promise of golden outputs; no Docker is needed for this one. A container image of one's own
(``image=``) is started as it is, and finds the same directory by ``AIP_STORAGE_URI``.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import attrs

from modeldeploy.backends.cloud import library
from modeldeploy.backends.vertex import names
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.serving.vertex import BUNDLE, LIBRARY, REQUIREMENTS

BASE_IMAGE = "mirror.gcr.io/library/python:{python}-slim"
"""Google's own copy of the official image; that the service pulls from there is assumed, see docs/backends/vertex.md."""
PORT = 8080
HEALTH, PREDICT = "/healthz", "/predict"
_START = "modeldeploy/serving/vertex.py"


@attrs.frozen
class Container:
    """What is started: an image, and the words that it is started with; none for one that starts by itself."""

    image: str
    command: tuple[str, ...] = ()


def generated(bundle: Bundle, base_image: str = "") -> Container:
    """Start a public image with Python of the version that the model was packaged with."""
    python = ".".join(bundle.manifest.python.split(".")[:2])
    text = library.sources()[_START].decode()
    return Container(base_image or BASE_IMAGE.format(python=python), ("python", "-c", text))


def contained(image: str) -> Container:
    """Start a container of one's own."""
    return Container(image)


@attrs.frozen
class File:
    """A file of a shipment: on this machine, or made here."""

    name: str
    path: Path | None = None
    data: bytes = b""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.path.stat().st_size if self.path else len(self.data)

    def read(self, start: int, size: int) -> bytes:
        """Read a piece of it."""
        if self.path is None:
            return self.data[start : start + size]
        with self.path.open("rb") as source:
            source.seek(start)
            return source.read(size)


@attrs.frozen
class Shipment:
    """The files of a model as they are to lie in the bucket, and the name of their place there."""

    files: tuple[File, ...]
    place: str

    @classmethod
    def of(cls, bundle: Bundle) -> Shipment:
        """Gather what a bundle needs; reads nothing but names and sizes."""
        requirements = "".join(f"{each}\n" for each in library.needed(bundle)).encode()
        own = zipped()
        named = names.content([bundle.digest, hashlib.sha256(own).hexdigest(), requirements.decode()])
        files = [File(f"{BUNDLE}/{name}", bundle.path / name) for name in _members(bundle)]
        return cls(
            (*files, File(LIBRARY, data=own), File(REQUIREMENTS, data=requirements)),
            f"modeldeploy/models/{bundle.manifest.name}/{named}",
        )


def _members(bundle: Bundle) -> list[str]:
    return sorted(path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file())


@functools.cache
def zipped() -> bytes:
    """Pack the library, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in library.sources().items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def variables(bundle: Bundle, trust: tuple[str, ...]) -> Mapping[str, str]:
    """Give the environment variables that the bundle needs; IntegrityError for pickled content that nobody vouched for."""
    trusted = library.refuse_untrusted(bundle, trust)
    return {names.ENV_TRUST: bundle.digest} if trusted else {}
