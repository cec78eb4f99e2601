"""A fleet as any endpoint is shown."""

from __future__ import annotations

from modeldeploy.backends.fleet.ledger import Kept, Ledger
from modeldeploy.edge.desired import Desired
from modeldeploy.values.serving import RevisionState


def live(desired: Desired) -> dict[str, int]:
    """Give the table without entries of 0."""
    return {revision: percent for revision, percent in desired.table.items() if percent}


def version(ledger: Ledger, desired: Desired | None) -> str:
    """Name the state of a fleet: another name after every change."""
    return f"{desired.sequence if desired else 0}.{ledger.changes}"


def shown(kept: Kept, *, there: bool) -> RevisionState:
    """Show a revision; it is ready while its release lies in the store."""
    return RevisionState(kept.revision, ready=there, note="" if there else "its release is gone from the store")
