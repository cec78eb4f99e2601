"""What is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

from modeldeploy.backends.fleet.ledger import Kept, Ledger
from modeldeploy.backends.fleet.showing import version
from modeldeploy.edge.desired import Desired
from modeldeploy.errors import ConfigurationError, ConflictError, NotFoundError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.serving import Revision, Traffic
from modeldeploy.values.ticket import Ticket


def known(ledger: Ledger, revision: Revision) -> Kept | None:
    """Find a revision in the ledger; ConflictError when its id has other content there."""
    kept = ledger.find(revision.id)
    if kept is not None and kept.revision != revision:
        message = f"fleet {ledger.fleet!r} has a revision {revision.id!r} with other content"
        raise ConflictError(message, hint="make the revision with Revision.of, so that its id follows from its content")
    return kept


def refuse_options(revision: Revision) -> None:
    """Refuse options of a revision, of which there are none."""
    if revision.options:
        message = f"backend 'fleet' knows no revision option {min(revision.options)!r}"
        raise ConfigurationError(message, hint="a device runs one worker with what it has; leave options= out")


def refuse_pickled(revision: Revision) -> None:
    """Refuse a model that no device would run."""
    bundle = Bundle.open(Path(revision.model.uri), expect=revision.model.digest)
    if bundle.manifest.pickled:
        message = f"{revision.model} holds pickled code, and devices run none"
        raise ConfigurationError(message, hint="convert the model to ONNX first: model.to_onnx(sample=rows)")


def refuse_unknown(ledger: Ledger, traffic: Traffic) -> None:
    """Refuse a table that names a revision which is not there."""
    unknown = sorted(name for name in traffic.weights if ledger.find(name) is None)
    if unknown:
        message = f"fleet {ledger.fleet!r} has no revisions {unknown}"
        raise NotFoundError(message, hint=f"it has {[each.revision.id for each in ledger.kept]}")


def refuse_used(desired: Desired | None, revision: str) -> None:
    """Refuse to drop a revision that devices are told to run."""
    if desired is not None and desired.table.get(revision):
        message = f"revision {revision!r} is wanted by {desired.table[revision]} % of fleet {desired.fleet!r}"
        raise ConflictError(message, hint="give its devices to another revision first")


def refuse_moved(ticket: Ticket, ledger: Ledger, desired: Desired | None) -> None:
    """Refuse to write over another version than the one that was expected."""
    expected, found = ticket.wanted["expect"], version(ledger, desired)
    if expected is not None and expected != found:
        message = f"fleet {ledger.fleet!r} is at version {found!r}, not {expected!r}"
        raise ConflictError(message, hint="observe it again and decide anew")
