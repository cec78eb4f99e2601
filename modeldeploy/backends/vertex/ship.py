"""Bundles to the bucket, a slice for each call: the place is named by the content, so whoever repeats finds what is there already.

A file of more than one slice goes by a resumable upload, whose address stands in the ticket: it lets its bearer write this one object for a
week, and what arrives is held against the check sum of what was to be sent.
"""

from __future__ import annotations

import functools
import json

import attrs

from modeldeploy.backends.vertex.entry import File, Shipment
from modeldeploy.backends.vertex.storage import Storage, Stored, UploadGoneError, crc32c, written
from modeldeploy.errors import ConflictError

SLICE = 8 << 20
"""Bytes that one call sends; the service takes multiples of 256 KiB."""
_READ = 1 << 20


@attrs.frozen
class Position:
    """Where a shipment stands: the file, and what has arrived of it."""

    file: int = 0
    upload: str = ""
    fraction: float = 0.0
    done: bool = False

    def dump(self) -> str:
        """Write it as a text for a ticket."""
        return json.dumps(attrs.astuple(self)[:2])

    @classmethod
    def load(cls, text: str) -> Position:
        """Read what ``dump`` wrote; an empty text is the start."""
        return cls(*json.loads(text)) if text else cls()


@attrs.frozen
class Shipper:
    """Ships to one bucket."""

    storage: Storage
    slice: int = SLICE

    def url(self, shipment: Shipment) -> str:
        """Give the address that a model is told."""
        return self.storage.url(shipment.place)

    def advance(self, shipment: Shipment, position: Position) -> Position:
        """Send the next slice; done when all files are observed to be there. Safe to repeat with any earlier position."""
        there = {each.key: each for each in self.storage.below(f"{shipment.place}/")}
        left = self.slice
        at = position.file
        while at < len(shipment.files):
            file = shipment.files[at]
            if position.upload:
                return self._slice(shipment, at, position.upload)
            if not self._is_there(shipment, file, there):
                if file.size > self.slice:
                    # Saved before the first byte is sent, so that whoever repeats goes on with the same upload.
                    address = self.storage.begin(_key(shipment, file), file.size)
                    return Position(at, address, _share(shipment, at))
                if left < file.size:
                    return Position(at, fraction=_share(shipment, at))
                self.storage.put(_key(shipment, file), file.read(0, file.size))
                left -= max(file.size, 1)
            at += 1
        return self._observe(shipment)

    def _slice(self, shipment: Shipment, at: int, upload: str) -> Position:
        file = shipment.files[at]
        try:
            start = self.storage.arrived(upload, file.size)
            if start < file.size:
                start = self.storage.send(upload, file.read(start, self.slice), start, file.size)
        except UploadGoneError:
            return Position(at)
        if start < file.size:
            return Position(at, upload, _share(shipment, at, start))
        return Position(at, fraction=_share(shipment, at, start))

    def _is_there(self, shipment: Shipment, file: File, there: dict[str, Stored]) -> bool:
        """Whether a file lies in the bucket; ConflictError when something else bears its name."""
        key = _key(shipment, file)
        found = there.get(key)
        if found is None:
            return False
        if (found.size, found.crc32c) != (file.size, written(_check(file))):
            message = f"{self.storage.url(key)} holds something else than its name says"
            raise ConflictError(message, hint="delete it, and deploy again")
        return True

    def _observe(self, shipment: Shipment) -> Position:
        there = {each.key: each for each in self.storage.below(f"{shipment.place}/")}
        missing = [at for at, file in enumerate(shipment.files) if not self._is_there(shipment, file, there)]
        if missing:
            return Position(missing[0], fraction=_share(shipment, missing[0]))
        return Position(len(shipment.files), fraction=1.0, done=True)


def _key(shipment: Shipment, file: File) -> str:
    return f"{shipment.place}/{file.name}"


def _share(shipment: Shipment, at: int, part: int = 0) -> float:
    whole = sum(each.size for each in shipment.files)
    return (sum(each.size for each in shipment.files[:at]) + part) / max(1, whole)


def _check(file: File) -> int:
    if file.path is None:
        return crc32c(file.data)
    found = file.path.stat()
    return _check_file(str(file.path), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _check_file(path: str, _size: int, _changed: int) -> int:
    """Compute the check sum of a file; remembered while it does not change."""
    found = 0
    with open(path, "rb") as source:  # noqa: PTH123 - a text is a key that can be remembered
        while data := source.read(_READ):
            found = crc32c(data, found)
    return found
