"""The part of a store that belongs to one fleet: its ledger, its releases, the state that devices pull, and their reports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from modeldeploy.backends.fleet.ledger import Ledger
from modeldeploy.edge import desired as desired_state
from modeldeploy.edge.desired import Desired, ReleaseRef
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.layout import DESIRED, REPORTS
from modeldeploy.edge.release import build
from modeldeploy.edge.stores import Store, Tick
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.names import check_name
from modeldeploy.values.serving import Revision, Traffic

# No fleet has a name that begins so.
LEDGERS = "_fleets/"


class Within:
    """The part of a store below a prefix, as a store: what the agents of one fleet are pointed to."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, f"{prefix}/"

    def get(self, path: str) -> bytes | None:
        """Read a small document whole."""
        return self._store.get(self._prefix + path)

    def get_to(self, path: str, file: Path, *, size: int | None = None, tick: Tick | None = None) -> bool:
        """Read into a file."""
        return self._store.get_to(self._prefix + path, file, size=size, tick=tick)

    def put(self, path: str, data: bytes | Path) -> None:
        """Write a document or a file."""
        self._store.put(self._prefix + path, data)

    def list(self, prefix: str) -> Iterable[str]:
        """Name what there is below a prefix."""
        return [path.removeprefix(self._prefix) for path in self._store.list(self._prefix + prefix)]

    def modified(self, path: str) -> float | None:
        """Say when it was written."""
        return self._store.modified(self._prefix + path)

    def delete(self, path: str) -> None:
        """Remove it."""
        self._store.delete(self._prefix + path)


class Shelf:
    """One fleet in a store; every document that is read is verified, for a store is trusted with nothing."""

    def __init__(self, store: Store, fleet: str, key: SigningKey) -> None:
        self.fleet = check_name(fleet, "fleet name")
        self.store = Within(store, fleet)
        self._root, self._key = store, key

    # The ledger

    def ledger(self) -> Ledger:
        """Read the ledger; an empty one when there is none."""
        data = self._root.get(self._ledger_path)
        return Ledger(self.fleet) if data is None else Ledger.verify(data, self._key, self.fleet)

    def write(self, ledger: Ledger) -> None:
        """Replace the ledger."""
        self._root.put(self._ledger_path, ledger.sign(self._key))

    @property
    def _ledger_path(self) -> str:
        return f"{LEDGERS}{self.fleet}.json"

    # What is wanted

    def desired(self) -> Desired | None:
        """Read the state that is published; None when there is none."""
        data = self.store.get(DESIRED)
        return None if data is None else desired_state.verify(data, [self._key.public], fleet=self.fleet)

    def publish(self, traffic: Traffic, ledger: Ledger, before: Desired | None, now: float) -> None:
        """Replace what is wanted by one write, with the next number."""
        live = traffic.live
        state = Desired(
            fleet=self.fleet,
            sequence=self.next_sequence(ledger, before),
            table=live,
            releases={each.revision.id: each.release for each in ledger.kept if each.revision.id in live},
            order=ranked(live, before.ranked if before else ()),
            issued=now,
        )
        self.store.put(DESIRED, state.sign(self._key))

    @staticmethod
    def next_sequence(ledger: Ledger, before: Desired | None) -> int:
        """Give the number that comes after everything that devices may have seen."""
        return max(before.sequence if before else 0, ledger.sequence) + 1

    def withdraw(self) -> None:
        """Let nothing be wanted any more; devices keep what they have."""
        self.store.delete(DESIRED)

    # Releases and reports

    def put_release(self, revision: Revision, sequence: int) -> ReleaseRef:
        """Build and store a release; one that lies there already is not written again."""
        bundle = Bundle.open(Path(revision.model.uri), expect=revision.model.digest)
        with tempfile.TemporaryDirectory(prefix="modeldeploy-") as folder:
            archive = build(
                bundle,
                fleet=self.fleet,
                revision=revision.id,
                sequence=sequence,
                key=self._key,
                to=Path(folder) / "release.tar.gz",
            )
            release = ReleaseRef.of(archive)
            if not self.has(release):
                self.store.put(release.path, archive)
        return release

    def has(self, release: ReleaseRef) -> bool:
        """Whether a release lies in the store."""
        return self.store.modified(release.path) is not None

    def clear(self, ledger: Ledger) -> None:
        """Remove the releases and the reports."""
        for path in (*(each.release.path for each in ledger.kept), *self.store.list(REPORTS)):
            self.store.delete(path)


def ranked(live: Mapping[str, int], before: Iterable[str]) -> tuple[str, ...]:
    """Order the revisions of a table by their places: who is new comes first, the others stay in their order.

    So a new revision has the lowest places, and whoever had it keeps it while its share grows.

    >>> ranked({"old": 90, "new": 10}, ["old"])
    ('new', 'old')
    """
    known = [revision for revision in before if revision in live]
    return (*sorted(live.keys() - set(known)), *known)
