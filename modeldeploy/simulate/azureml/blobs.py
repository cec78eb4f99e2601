"""What lies in the storage account: containers and block blobs, their bytes in files."""

from __future__ import annotations

import base64
import hashlib
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Protocol

import attrs

_NOTHING: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Blob:
    """One blob as it is at a moment; a change makes another."""

    name: str
    file: Path
    size: int
    md5: str
    modified: float
    etag: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Content type, encoding and the like, as they are told again."""
    metadata: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Container:
    """One container."""

    name: str
    modified: float
    blobs: dict[str, Blob] = attrs.field(factory=dict)
    blocks: dict[tuple[str, str], Path] = attrs.field(factory=dict)
    """Blocks that were put and not yet committed, by blob and block id."""


class Store(Protocol):
    """What the simulator itself asks of a storage account."""

    def has(self, container: str) -> bool:
        """Say whether a container is there."""
        ...

    def create(self, container: str, now: float) -> None:
        """Create a container; one that is there stays as it is."""
        ...

    def write(self, container: str, name: str, stream: IO[bytes], now: float) -> object:
        """Put a blob in place of the one of its name."""
        ...

    def fetch(self, container: str, prefix: str, into: Path) -> int:
        """Copy the blob of that name, or all below it, and say how many; each keeps its name behind the last part of the prefix."""
        ...


@attrs.define(eq=False)
class Blobs:
    """All containers; whoever reads a blob gets its bytes as they were then."""

    directory: Path
    containers: dict[str, Container] = attrs.field(factory=dict)
    lock: threading.RLock = attrs.field(factory=threading.RLock)

    def write(
        self,
        container: str,
        name: str,
        stream: IO[bytes],
        now: float,
        *,
        headers: Mapping[str, str] = _NOTHING,
        metadata: Mapping[str, str] = _NOTHING,
    ) -> Blob:
        """Put a blob in place of the one of its name."""
        blob = self._written(name, stream, now, headers, metadata)
        with self.lock:
            self.containers[container].blobs[name] = blob
        return blob

    def _written(
        self, name: str, stream: IO[bytes], now: float, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Blob:
        file = self.directory / uuid.uuid4().hex
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        with file.open("wb") as out:
            while data := stream.read(1 << 20):
                digest.update(data)
                size += len(data)
                out.write(data)
        md5 = base64.b64encode(digest.digest()).decode()
        return Blob(name, file, size, md5, now, etag(), headers, metadata)

    def block(self, container: str, name: str, block: str, stream: IO[bytes]) -> None:
        """Keep a block until it is committed."""
        file = self.directory / uuid.uuid4().hex
        with file.open("wb") as out:
            shutil.copyfileobj(stream, out)
        with self.lock:
            self.containers[container].blocks[name, block] = file

    def find(self, container: str, name: str) -> Blob | None:
        """Find a blob."""
        with self.lock:
            there = self.containers.get(container)
            return None if there is None else there.blobs.get(name)

    def under(self, container: str, prefix: str) -> list[Blob]:
        """Give the blobs whose names begin so, by their names."""
        with self.lock:
            there = self.containers.get(container)
            found: Iterable[Blob] = () if there is None else there.blobs.values()
            return sorted((each for each in found if each.name.startswith(prefix)), key=lambda each: each.name)

    def has(self, container: str) -> bool:
        """Say whether a container is there."""
        return container in self.containers

    def create(self, container: str, now: float) -> None:
        """Create a container; one that is there stays as it is."""
        with self.lock:
            self.containers.setdefault(container, Container(container, now))

    def fetch(self, container: str, prefix: str, into: Path) -> int:
        """Copy the blob of that name, or all below it, and say how many; each keeps its name behind the last part of the prefix."""
        folder = prefix.rstrip("/")
        found = [
            each for each in self.under(container, folder) if each.name == folder or each.name.startswith(f"{folder}/")
        ]
        for blob in found:
            shutil.copyfile(blob.file, target(blob.name, folder, into))
        return len(found)


def target(name: str, folder: str, into: Path) -> Path:
    """Say where a blob goes that is this folder or lies in it, and make its directory."""
    base = folder.rpartition("/")[0]
    place = into / name.removeprefix(base).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def etag() -> str:
    """Make an entity tag that nothing else has."""
    return f'"0x{uuid.uuid4().hex[:16].upper()}"'
