"""Leases: who drives an operation.

Taking a lease changes the record's ``seq``, and every write is refused unless it knows the present one: ``seq`` is the fencing counter,
checked in the transaction of the write. So a driver that was frozen past its lease and wakes up writes nothing, however long it slept, and
begins no further act at the provider, for it looks at ``seq`` before each. An act that it had begun before may still arrive late. What
protects against that is the provider: revisions and jobs have derived names, so doing them again finds them done, and a traffic table
travels with the version that it was made for (``expect=``), so one that is late is refused where that is atomic (``expect_is_atomic``).

Instants are of the wall clock, the only one that processes and machines share: set forward it ends leases early, which fencing makes safe;
set back it keeps a silent driver's lease for longer.
"""

from __future__ import annotations

import sqlite3

import attrs

from modeldeploy.engine.journal_tables import COLUMNS, to_record
from modeldeploy.engine.owners import describe, lives
from modeldeploy.engine.record import Record
from modeldeploy.errors import ConflictError, FencedError, NotFoundError

LEASE_S = 60.0
"""How long a silent driver keeps its operation; one on this machine loses it with its process."""


def acquire(connection: sqlite3.Connection, operation: str, owner: str, *, at: float, until: float) -> Record:
    """Make ``owner`` the driver; ConflictError names a living one."""
    row = connection.execute(
        f"SELECT {COLUMNS}, owner, lease_until FROM operation WHERE id=?",  # noqa: S608 - constants
        (operation,),
    ).fetchone()
    if row is None:
        message = f"no operation {operation!r}"
        raise NotFoundError(message)
    *plain, holder, lease = row
    record = to_record(tuple(plain))
    if record.phase.ended:
        message = f"operation {operation!r} has ended: {record.phase.value}, {record.outcome}"
        raise ConflictError(message, hint="begin a new one", context={"operation": operation})
    if holder and holder != owner and lives(holder, lease or 0, at):
        message = f"operation {operation!r} is driven by {describe(holder)}"
        raise ConflictError(message, hint="follow it with Operation.get(id).wait()", context={"operation": operation})
    connection.execute("UPDATE operation SET owner=?, lease_until=?, seq=seq+1 WHERE id=?", (owner, until, operation))
    return attrs.evolve(record, seq=record.seq + 1)


def renew(connection: sqlite3.Connection, record: Record, until: float) -> None:
    """Prolong the lease of whoever wrote ``record`` last; FencedError when that was somebody else."""
    done = connection.execute("UPDATE operation SET lease_until=? WHERE id=? AND seq=?", (until, record.id, record.seq))
    if done.rowcount != 1:
        raise fenced(record)


def release(connection: sqlite3.Connection, record: Record) -> bool:
    """Give the operation back and say whether it was there to give: somebody else may drive it by now."""
    done = connection.execute(
        "UPDATE operation SET owner=NULL, lease_until=0 WHERE id=? AND seq=?", (record.id, record.seq)
    )
    return done.rowcount == 1


def fenced(record: Record) -> FencedError:
    """Make the error for a driver that is one no longer."""
    message = f"operation {record.id!r} was taken over or changed by somebody else"
    return FencedError(message, hint="this driver stops; the other one goes on", context={"operation": record.id})
