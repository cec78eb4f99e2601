"""A bundle to S3, where a container finds its model: ``s3://BUCKET/PREFIX/DIGEST/model.tar.gz``.

The key names the content, so what is there already is adopted, and two that ship the same model do each other's work. An upload goes on a
slice at a time; where it stands is a short text that a ticket carries. An upload in parts that was begun and lost is found and taken up by
whoever ships the same content next, and ``withdraw`` and ``Shipper.abandon`` leave none behind.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Mapping

import attrs

from modeldeploy.backends.sagemaker import entry, images
from modeldeploy.backends.sagemaker.archive import TarStream, pack
from modeldeploy.backends.sagemaker.storage import Storage, UploadGoneError
from modeldeploy.errors import ConflictError, IntegrityError
from modeldeploy.packaging.bundle import Bundle

FILE = "model.tar.gz"
SLICE = 8 << 20
"""Compressed bytes in a slice; S3 takes no part under 5 MiB but the last."""
_DIGEST = "modeldeploy-content"


@attrs.frozen
class Shipment:
    """What CreateModel must be told about a model: its image, where its archive is, and the environment of its container."""

    image: str
    model_data_url: str
    environment: Mapping[str, str]
    digest: str
    """Of the archive's content, 64 hexadecimal digits."""

    def container(self) -> dict[str, object]:
        """Give CreateModel's ``PrimaryContainer``."""
        return {"Image": self.image, "ModelDataUrl": self.model_data_url, "Environment": dict(self.environment)}


@attrs.frozen
class Position:
    """Where an upload stands."""

    upload: str = ""
    parts: int = 0
    offset: int = 0
    crc: int = 0
    chain: str = ""
    """A digest over the parts that were sent, in their order; what is put together must be these."""
    done: bool = False
    fraction: float = 0.0

    def dump(self) -> str:
        """Write it as a text for a ticket."""
        return json.dumps(attrs.astuple(self))

    @classmethod
    def load(cls, text: str) -> Position:
        """Read what ``dump`` wrote; an empty text is the start."""
        return cls(*json.loads(text)) if text else cls()


class Shipper:
    """Ships bundles to one place in a bucket."""

    def __init__(self, storage: Storage, *, prefix: str = "modeldeploy", least: int = SLICE) -> None:
        self._storage = storage
        self._prefix = prefix.strip("/")
        self._least = least

    def shipment(self, bundle: Bundle, image: images.Image, *, trust: Collection[str] = ()) -> Shipment:
        """Say what CreateModel will be told; sends nothing. IntegrityError for pickled content that ``trust`` does not name."""
        stream = self._stream(bundle)
        url = self._storage.url(self._key(stream))
        return Shipment(image.uri, url, entry.environment(bundle, trust), stream.digest)

    def advance(self, bundle: Bundle, position: Position | None = None) -> Position:
        """Send the next slice; ``done`` when the archive is observed to be there. Safe to repeat with any earlier position."""
        position = position or Position()
        if position.done:
            return position
        stream = self._stream(bundle)
        key = self._key(stream)
        if not position.upload:
            return self._begin(bundle, stream, key)
        try:
            return self._send(stream, key, position)
        except UploadGoneError:
            # Somebody else finished the same upload, or threw it away.
            return Position(done=True, fraction=1.0) if self._arrived(key, stream) else Position()

    def arrived(self, bundle: Bundle) -> bool:
        """Whether the archive is there; ConflictError when something else is."""
        stream = self._stream(bundle)
        return self._arrived(self._key(stream), stream)

    def withdraw(self, digest: str) -> None:
        """Delete an archive by its digest, and every unfinished upload of it; nothing that is still to start may need it."""
        key = f"{self._prefix}/{digest}/{FILE}"
        for upload in self._storage.begun(key):
            self._storage.abandon(key, upload)
        self._storage.delete([key])

    def abandon(self, bundle: Bundle) -> None:
        """Throw the unfinished uploads of this bundle away; an archive that is complete stays."""
        key = self._key(self._stream(bundle))
        for upload in self._storage.begun(key):
            self._storage.abandon(key, upload)

    def _stream(self, bundle: Bundle) -> TarStream:
        return TarStream(entry.members(bundle))

    def _key(self, stream: TarStream) -> str:
        return f"{self._prefix}/{stream.digest}/{FILE}"

    def _arrived(self, key: str, stream: TarStream) -> bool:
        found = self._storage.find(key)
        if found is None:
            return False
        if found.metadata.get(_DIGEST) != stream.digest:
            message = f"{self._storage.url(key)} holds something else than its name says"
            raise ConflictError(message, hint="delete it, or ship to another prefix=")
        return True

    def _begin(self, bundle: Bundle, stream: TarStream, key: str) -> Position:
        if self._arrived(key, stream):
            return Position(done=True, fraction=1.0)
        bundle.verify()
        first = pack(stream, 0, 0, self._least)
        if first.last:
            self._storage.put(key, first.data, kind="application/gzip", metadata={_DIGEST: stream.digest})
            return self._observe(key, stream)
        begun = self._storage.begun(key)
        # The position is saved before the first part is sent: an upload that is lost in between is found by its key.
        return Position(upload=min(begun) if begun else self._storage.begin(key, {_DIGEST: stream.digest}))

    def _send(self, stream: TarStream, key: str, position: Position) -> Position:
        if position.offset == stream.size:
            return self._finish(stream, key, position)
        try:
            piece = pack(stream, position.offset, position.crc, self._least)
        except (OSError, EOFError) as error:
            message = f"the bundle changed while it was sent: {error}"
            raise IntegrityError(message, hint="package the model again") from error
        sent = self._storage.send(key, position.upload, position.parts + 1, piece.data)
        chain = _chained(position.chain, sent.etag)
        fraction = piece.offset / stream.size
        return Position(position.upload, position.parts + 1, piece.offset, piece.crc, chain, fraction=fraction)

    def _finish(self, stream: TarStream, key: str, position: Position) -> Position:
        """Put the parts together if they are the ones that were sent: another machine's zlib may have cut the same upload elsewhere."""
        parts = self._storage.parts(key, position.upload)[: position.parts]
        if functools.reduce(_chained, (part.etag for part in parts), "") != position.chain:
            self._storage.abandon(key, position.upload)
            return Position()
        self._storage.finish(key, position.upload, parts)
        return self._observe(key, stream)

    def _observe(self, key: str, stream: TarStream) -> Position:
        if not self._arrived(key, stream):
            message = f"{self._storage.url(key)} is not there after it was sent"
            raise ConflictError(message, hint="does somebody else delete below this prefix?")
        return Position(done=True, fraction=1.0)


def _chained(chain: str, part: str) -> str:
    return hashlib.sha256(f"{chain}\n{part}".encode()).hexdigest()
