"""What lies in Cloud Storage: buckets and objects, their bytes in files that never change."""

from __future__ import annotations

import base64
import hashlib
import itertools
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

import attrs

_NOTHING: Mapping[str, object] = MappingProxyType({})


class PreconditionError(Exception):
    """The object is not what the caller took it for."""


@attrs.frozen
class Conditions:
    """What a caller wants an object to be; None where it does not matter, and generation 0 for no object."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None

    def check(self, there: Object | None) -> None:
        """Raise PreconditionError when an object is something else."""
        generation = 0 if there is None else there.generation
        wrong = (
            (self.generation is not None and generation != self.generation)
            or (self.not_generation is not None and generation == self.not_generation)
            or (self.metageneration is not None and (there is None or there.metageneration != self.metageneration))
        )
        if wrong:
            raise PreconditionError


@attrs.frozen
class Object:
    """One object as it is at a moment; a change makes another."""

    bucket: str
    name: str
    file: Path
    size: int
    md5: str
    crc32c: str
    generation: int
    created: float
    metageneration: int = 1
    settings: Mapping[str, object] = _NOTHING
    """Content type, metadata and the like, as they are told again."""


@attrs.define(eq=False)
class Objects:
    """All buckets; whoever reads an object gets its bytes as they were then."""

    directory: Path
    buckets: dict[str, dict[str, Object]] = attrs.field(factory=dict)
    created: dict[str, float] = attrs.field(factory=dict)
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    _generations: itertools.count[int] = attrs.field(factory=lambda: itertools.count(int(time.time() * 1e6)))

    def create(self, bucket: str, now: float) -> None:
        """Create a bucket; one that is there stays as it is."""
        with self.lock:
            self.buckets.setdefault(bucket, {})
            self.created.setdefault(bucket, now)

    def write(
        self,
        place: tuple[str, str],
        stream: IO[bytes],
        now: float,
        *,
        settings: Mapping[str, object] = _NOTHING,
        conditions: Conditions | None = None,
    ) -> Object:
        """Put an object in place of the one of its name, if that is as it should be."""
        return self.put(place, self.kept(stream), now, settings=settings, conditions=conditions)

    def kept(self, stream: IO[bytes]) -> Path:
        """Keep bytes that are not yet an object."""
        file = self.directory / uuid.uuid4().hex
        with file.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
        return file

    def put(
        self,
        place: tuple[str, str],
        file: Path,
        now: float,
        *,
        settings: Mapping[str, object] = _NOTHING,
        conditions: Conditions | None = None,
    ) -> Object:
        """Make a file an object."""
        bucket, name = place
        md5, crc32c = checksums(file)
        size = file.stat().st_size
        with self.lock:
            there = self.buckets[bucket].get(name)
            try:
                (conditions or Conditions()).check(there)
            except PreconditionError:
                file.unlink()
                raise
            made = Object(bucket, name, file, size, md5, crc32c, next(self._generations), now, settings=settings)
            self.buckets[bucket][name] = made
        return made

    def evolve(self, there: Object, settings: Mapping[str, object], conditions: Conditions) -> Object:
        """Change what is said about an object."""
        with self.lock:
            conditions.check(self.find(there.bucket, there.name))
            made = attrs.evolve(there, settings=settings, metageneration=there.metageneration + 1)
            self.buckets[there.bucket][there.name] = made
        return made

    def copy(self, there: Object, place: tuple[str, str], now: float, conditions: Conditions | None = None) -> Object:
        """Put another object with the same bytes; files never change, so they share one."""
        bucket, name = place
        with self.lock:
            (conditions or Conditions()).check(self.buckets[bucket].get(name))
            made = attrs.evolve(
                there, bucket=bucket, name=name, generation=next(self._generations), created=now, metageneration=1
            )
            self.buckets[bucket][name] = made
        return made

    def find(self, bucket: str, name: str) -> Object | None:
        """Find an object."""
        with self.lock:
            return self.buckets.get(bucket, {}).get(name)

    def delete(self, there: Object, conditions: Conditions) -> None:
        """Delete an object if it is as it should be."""
        with self.lock:
            conditions.check(self.find(there.bucket, there.name))
            self.buckets.get(there.bucket, {}).pop(there.name, None)

    def under(self, bucket: str, prefix: str) -> list[Object]:
        """Give the objects whose names begin so, by their names."""
        with self.lock:
            there: Iterable[Object] = list(self.buckets.get(bucket, {}).values())
        # The service orders names by their bytes.
        return sorted((each for each in there if each.name.startswith(prefix)), key=lambda each: each.name.encode())


def checksums(file: Path) -> tuple[str, str]:
    """Compute MD5 and CRC32C of a file as the API writes them."""
    import google_crc32c

    md5, crc = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()
    with file.open("rb") as stream:
        while data := stream.read(1 << 20):
            md5.update(data)
            crc.update(data)
    return base64.b64encode(md5.digest()).decode(), base64.b64encode(crc.digest()).decode()


def place_of(uri: str) -> tuple[str, str]:
    """Split a ``gs://`` URI into its bucket and the rest.

    >>> place_of("gs://models/iris/1/")
    ('models', 'iris/1/')
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name
