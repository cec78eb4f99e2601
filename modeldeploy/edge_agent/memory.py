"""What a device remembers through a loss of power: the newest desired state it has seen, and what failed on it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs
import orjson

from modeldeploy.edge.desired import Desired, verify
from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge_agent import durable
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_json, to_json

_KEPT = 32


@attrs.frozen
class Failure:
    """A release that did not stay on this device."""

    digest: str
    """Of its archive."""
    revision: str
    sequence: int
    """The desired state under which it was tried."""
    reason: str
    lasting: bool
    """Whether it is never tried again: it passed its self-test and died in service."""


class Memory:
    """Two files below the agent's home, each replaced whole."""

    def __init__(self, home: Path, keys: Collection[VerifyKey], *, fleet: str) -> None:
        self._keys = tuple(keys)
        self._fleet = fleet
        self._desired_file = home / "desired.json"
        self._failures_file = home / "failures.json"
        self._document = b""
        self.desired = self._read_desired()
        self.failures = self._read_failures()

    # The desired state

    def take(self, document: bytes) -> bool:
        """Follow a document from the store; False when it is the one that is followed already, IntegrityError when it is refused."""
        if document == self._document:
            return False
        after, known = (self.desired.sequence, self.desired.digest) if self.desired is not None else (0, None)
        desired = verify(document, self._keys, fleet=self._fleet, after=after, known=known)
        if desired == self.desired:
            return False
        durable.write(self._desired_file, document)
        self._document, self.desired = document, desired
        return True

    def _read_desired(self) -> Desired | None:
        try:
            document = self._desired_file.read_bytes()
            desired = verify(document, self._keys, fleet=self._fleet)
        except (OSError, IntegrityError):
            # Without it the device serves what it has, and learns at the next poll what is wanted.
            return None
        self._document = document
        return desired

    # Failures

    def failure(self, digest: str, sequence: int) -> Failure | None:
        """Find what speaks against trying a release under this desired state."""
        found = self.failures.get(digest)
        return found if found is not None and (found.lasting or found.sequence == sequence) else None

    def remember(self, failure: Failure) -> None:
        """Write down that a release failed here."""
        rest = {digest: each for digest, each in self.failures.items() if digest != failure.digest}
        newest = [*rest.values(), failure][-_KEPT:]
        self.failures = {each.digest: each for each in newest}
        durable.write_json(self._failures_file, [to_json(each) for each in newest])

    def _read_failures(self) -> Mapping[str, Failure]:
        with contextlib.suppress(OSError, orjson.JSONDecodeError, ConfigurationError):
            found = from_json(tuple[Failure, ...], orjson.loads(self._failures_file.read_bytes()))
            return {each.digest: each for each in found}
        return {}
