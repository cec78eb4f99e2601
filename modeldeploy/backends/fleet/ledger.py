"""What the store holds about a fleet beside what devices read: which revisions it has, signed like all the rest."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import orjson

from modeldeploy.edge.desired import ReleaseRef
from modeldeploy.edge.keys import SigningKey, check_signatures, write_signatures
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_document, to_document
from modeldeploy.values.serving import Revision

_PURPOSE = "ledger"


@attrs.frozen
class Kept:
    """A revision, and where its release lies."""

    revision: Revision
    release: ReleaseRef


@attrs.frozen
class Ledger:
    """The revisions of one fleet in the order in which they came; without any the fleet is gone."""

    fleet: str
    options: Mapping[str, str] = attrs.field(factory=dict[str, str])
    kept: tuple[Kept, ...] = ()
    changes: int = 0
    """Rises with every change of the ledger."""
    sequence: int = 0
    """The number of the last state that was published before the fleet was dropped: devices follow no lower one."""

    def find(self, revision: str) -> Kept | None:
        """Find a revision by its id."""
        return next((each for each in self.kept if each.revision.id == revision), None)

    def adding(self, kept: Kept, options: Mapping[str, str]) -> Ledger:
        """Give this ledger with one revision more."""
        options = options if not self.kept else self.options
        return attrs.evolve(self, options=options, kept=(*self.kept, kept), changes=self.changes + 1)

    def without(self, revision: str) -> Ledger:
        """Give this ledger with one revision less."""
        left = tuple(each for each in self.kept if each.revision.id != revision)
        return attrs.evolve(self, kept=left, changes=self.changes + 1)

    def sign(self, key: SigningKey) -> bytes:
        """Write it as a signed document."""
        payload = orjson.dumps(to_document(self), option=orjson.OPT_SORT_KEYS)
        signatures = orjson.loads(write_signatures(_PURPOSE, payload, [key]))
        return orjson.dumps({"payload": payload.decode(), "signatures": signatures}) + b"\n"

    @classmethod
    def verify(cls, data: bytes, key: SigningKey, fleet: str) -> Ledger:
        """Read what ``sign`` wrote; IntegrityError when it is something else, another key's, or another fleet's."""
        try:
            document = orjson.loads(data)
            payload, signatures = document["payload"].encode(), orjson.dumps(document["signatures"])
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            message = f"the ledger of fleet {fleet!r} is no signed document"
            raise IntegrityError(message, hint="it is damaged, or something else lies in its place") from error
        check_signatures(_PURPOSE, payload, signatures, [key.public])
        try:
            found = from_document(cls, orjson.loads(payload))
        except ConfigurationError as error:
            message = f"the ledger of fleet {fleet!r} is signed but cannot be read: {error}"
            raise IntegrityError(
                message, hint="use the version of modeldeploy that wrote it, or a newer one"
            ) from error
        if found.fleet != fleet:
            message = f"the ledger of fleet {fleet!r} is that of fleet {found.fleet!r}"
            raise IntegrityError(message, hint="somebody copied it; restore the store from a backup")
        return found
