"""The desired state of a fleet: one signed document that devices pull, and each reads for itself what it is to run.

A device's place in its fleet is a number from 0 to 99 that depends on the names of both alone. The revision that stands first in ``order``
has the lowest places, so when its share grows, whoever had it keeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs
import orjson

from modeldeploy.edge.keys import SigningKey, VerifyKey, check_signatures, write_signatures
from modeldeploy.edge.layout import check_release_digest, release_path
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_document, to_document

PURPOSE = "desired state"
_PLACES = 100
_BLOCK = 1 << 20


@attrs.frozen
class ReleaseRef:
    """Where a release lies in the store, and what it must be: ``digest`` is the SHA-256 of the archive in hexadecimal digits."""

    digest: str = attrs.field(validator=lambda _i, _a, value: check_release_digest(value))
    path: str
    size: int

    @classmethod
    def of(cls, archive: Path) -> ReleaseRef:
        """Describe an archive that ``build`` made."""
        digest = hash_file(archive)
        return cls(digest=digest, path=release_path(digest), size=Path(archive).stat().st_size)


@attrs.frozen
class Desired:
    """What a whole fleet is to run: ``table`` says which share of the devices runs which revision."""

    fleet: str
    sequence: int
    """Rises with every change; a device follows no lower one than it has seen."""
    table: Mapping[str, int]
    """``{revision: percent of the devices}``; 100 together, or empty where nothing is wanted."""
    releases: Mapping[str, ReleaseRef]
    order: tuple[str, ...] = ()
    """Which revisions have the lowest places; the others follow in the order of their names."""
    blocked: tuple[str, ...] = ()
    """Revisions that no device installs any more, and that it leaves when it still has another."""
    issued: float = 0.0
    """Seconds since 1970 by the clock of who signed it; for people, for a device's own clock may be wrong by years."""

    def __attrs_post_init__(self) -> None:
        _check_table(self.table)
        missing = sorted(revision for revision in self.table if self.table[revision] and revision not in self.releases)
        if missing:
            message = f"the desired state of {self.fleet!r} names no release for {missing}"
            raise ConfigurationError(message, hint="every revision in the table needs one")
        if self.sequence < 1:
            message = f"the desired state of {self.fleet!r} has the sequence {self.sequence}"
            raise ConfigurationError(message, hint="count from 1, and one up with every change")

    def payload(self) -> bytes:
        """Write it canonically, without signature: the same state is always the same bytes."""
        return orjson.dumps(to_document(self), option=orjson.OPT_SORT_KEYS)

    @property
    def digest(self) -> str:
        """Name the content: SHA-256 in hexadecimal digits."""
        return hashlib.sha256(self.payload()).hexdigest()

    def sign(self, *keys: SigningKey) -> bytes:
        """Write the signed document; with several keys, devices that know any one of them follow it."""
        payload = self.payload()
        signatures = orjson.loads(write_signatures(PURPOSE, payload, keys))
        return orjson.dumps({"payload": payload.decode(), "signatures": signatures}, option=orjson.OPT_INDENT_2) + b"\n"

    @property
    def ranked(self) -> tuple[str, ...]:
        """Name the revisions of the table by their places, lowest first."""
        first = [revision for revision in self.order if revision in self.table]
        return (*first, *sorted(self.table.keys() - set(first)))


def verify(
    data: bytes, keys: Collection[VerifyKey], *, fleet: str, after: int = 0, known: str | None = None
) -> Desired:
    """Read a signed document; IntegrityError for another fleet's, an unknown key's, a changed one, or one older than ``after``.

    ``known`` is the digest of the state that had the sequence ``after``: another content under the same number is refused too. The
    signature is checked before anything of the payload is read.
    """
    payload, signatures = _opened(data)
    check_signatures(PURPOSE, payload, signatures, keys)
    try:
        desired = from_document(Desired, orjson.loads(payload))
    except (orjson.JSONDecodeError, ConfigurationError) as error:
        message = f"the desired state of {fleet!r} is signed but cannot be read: {error}"
        raise IntegrityError(message, hint="it may be of a newer version; update modeldeploy on the device") from error
    if desired.fleet != fleet:
        message = f"the desired state is of fleet {desired.fleet!r}, this device belongs to {fleet!r}"
        raise IntegrityError(message, hint="point the device to its own fleet's store")
    _check_sequence(desired, after, known)
    return desired


def wanted(desired: Desired, device: str) -> str | None:
    """Say which revision a device is to run; None when nothing is wanted of it, and it keeps what it has."""
    at, edge = place(desired.fleet, device), 0
    for revision in desired.ranked:
        edge += desired.table[revision]
        if at < edge:
            return None if revision in desired.blocked else revision
    return None


def place(fleet: str, device: str) -> int:
    """Give a device's place in its fleet, from 0 to 99, which never changes.

    >>> place("cameras", "line-1")
    43
    """
    digest = hashlib.sha256(f"{fleet}\x1f{device}".encode()).digest()
    return int.from_bytes(digest[:8]) % _PLACES


def hash_file(path: Path) -> str:
    """Give the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _opened(data: bytes) -> tuple[bytes, bytes]:
    try:
        document = orjson.loads(data)
        return document["payload"].encode(), orjson.dumps(document["signatures"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        message = "the desired state is no signed document"
        raise IntegrityError(
            message, hint="it is damaged or something else lies in its place; publish it again"
        ) from error


def _check_sequence(desired: Desired, after: int, known: str | None) -> None:
    if desired.sequence < after:
        message = (
            f"the desired state of {desired.fleet!r} has sequence {desired.sequence}, and {after} was seen already"
        )
        raise IntegrityError(message, hint="somebody shows an old state again, or the store was restored from a backup")
    if desired.sequence == after and known is not None and desired.digest != known:
        message = f"two desired states of {desired.fleet!r} have the sequence {after}"
        raise IntegrityError(message, hint="publish with the next number")


def _check_table(table: Mapping[str, int]) -> None:
    total = sum(table.values())
    if any(percent < 0 for percent in table.values()) or total not in ({_PLACES} if table else {0}):
        message = f"the shares {dict(table)} are no whole percentages with the sum 100"
        raise ConfigurationError(message, hint="say for every device what it is to run, such as {'v2': 10, 'v1': 90}")
