"""Two slots for releases, and one small file that says which of them is served.

::

    HOME/slots/a, HOME/slots/b        unpacked releases
    HOME/slots/a.site, ...            libraries that a release brings for this machine, unpacked
    HOME/slots/a.digest, ...          the digest of the archive that a slot was unpacked from; there only while the slot is whole
    HOME/active.json                  the pointer: which slot, and whether its release is still on trial

What is served is never touched. A release goes into the other slot, is flushed and proved there, and then one rename of the pointer makes
it the one that is served; the slot that was served until then keeps what it had.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from pathlib import Path

import attrs
import orjson

from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.release import Release, check_release, open_release
from modeldeploy.edge.stores import full_disk
from modeldeploy.edge_agent import durable, runtime
from modeldeploy.errors import ConfigurationError, IntegrityError, ModelDeployError
from modeldeploy.values.codec import from_json, to_json

NAMES = ("a", "b")


@attrs.frozen
class Pointer:
    """What ``active.json`` says."""

    slot: str | None = None
    """The slot that is served; None before the first release."""
    trial: bool = False
    """Whether its release still has to show that it stays up."""
    attempts: int = 0
    """How often it was started while on trial, counted before each start: what takes the whole device down is counted too."""


@attrs.frozen(eq=False)
class Slot:
    """A slot with a whole release in it."""

    name: str
    path: Path
    digest: str
    """Of the archive that it was unpacked from."""
    release: Release

    @property
    def site(self) -> Path | None:
        """Give the libraries that it brought for this machine, if it did."""
        path = self.path.with_name(f"{self.name}.site")
        return path if path.is_dir() else None


class Slots:
    """The slots and the pointer below one directory."""

    def __init__(self, home: Path, keys: Collection[VerifyKey], *, fleet: str) -> None:
        self._root = home / "slots"
        self._file = home / "active.json"
        self._keys = tuple(keys)
        self._fleet = fleet
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pointer = self._read()

    # Reading

    def look(self, name: str | None, *, files: bool = False) -> Slot | None:
        """Give what is in a slot; None when it is empty, half written, or not what its signature says. ``files`` compares every byte."""
        digest = self._digest(name) if name in NAMES else None
        if name is None or digest is None:
            return None
        try:
            release = check_release(self._root / name, self._keys, fleet=self._fleet, files=files)
        except (ModelDeployError, OSError):
            return None
        return Slot(name, self._root / name, digest, release)

    @property
    def active(self) -> Slot | None:
        """Give the slot that the pointer names."""
        return self.look(self.pointer.slot)

    @property
    def spare(self) -> str:
        """Name the slot that is not served, and may be written."""
        return NAMES[1] if self.pointer.slot == NAMES[0] else NAMES[0]

    def _digest(self, name: str) -> str | None:
        with contextlib.suppress(OSError):
            return (self._root / f"{name}.digest").read_text(encoding="ascii").strip()
        return None

    def _read(self) -> Pointer:
        with contextlib.suppress(OSError, orjson.JSONDecodeError, ConfigurationError):
            pointer = from_json(Pointer, orjson.loads(self._file.read_bytes()))
            if pointer.slot in {None, *NAMES}:
                return pointer
        if not self._file.exists():
            return Pointer()
        # It is only ever replaced whole, so the disk is to blame. A slot that is whole serves better than none.
        return Pointer(next((name for name in NAMES if self.look(name, files=True) is not None), None))

    # Writing

    def fill(self, archive: Path, digest: str) -> Slot:
        """Unpack a release into the spare slot, verify it there and flush it; IntegrityError when it is not what it should be."""
        name = self.spare
        path = self._root / name
        self._clear(name)
        durable.reached("clear")
        try:
            open_release(archive, self._keys, fleet=self._fleet, into=path)
        except IntegrityError as error:
            if isinstance(error.__cause__, OSError):
                # A full disk says nothing against the release.
                with full_disk(path):
                    raise error.__cause__ from error
            raise
        durable.reached("unpack")
        site = runtime.unpack(path, self._root / f"{name}.site")
        for tree in (path, *site):
            durable.sync_tree(tree)
        durable.reached("flush")
        durable.write(self._root / f"{name}.digest", digest.encode() + b"\n")
        found = self.look(name)
        if found is None:
            message = f"slot {name!r} does not hold what was written to it"
            raise ConfigurationError(message, hint="look at the disk of this device")
        return found

    def point(self, pointer: Pointer) -> None:
        """Let another slot, or another state of it, hold from now on."""
        durable.write_json(self._file, to_json(pointer))
        self.pointer = pointer

    def tidy(self) -> None:
        """Remove what a power loss left half done."""
        for name in NAMES:
            if self._digest(name) is None and (self._root / name).exists():
                self._clear(name)
        for left in (*self._root.glob(".*"), *self._file.parent.glob(".*.json.*")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()

    def _clear(self, name: str) -> None:
        # First the word that it is whole, then the slot itself.
        durable.remove(self._root / f"{name}.digest")
        durable.reached("forget")
        for path in (self._root / name, self._root / f"{name}.site"):
            if path.exists():
                shutil.rmtree(path)
