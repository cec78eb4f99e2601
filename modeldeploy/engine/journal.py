"""The journal: one SQLite file (WAL) that remembers what was intended, so that any process can take it up.

Rows change only by compare-and-swap on ``seq``. A driver owns an operation by a lease; taking a lease changes ``seq``, which fences off
whoever held it before, however long that one was frozen. No secrets and no payloads are stored.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from modeldeploy.engine import history as chained
from modeldeploy.engine import leases
from modeldeploy.engine import outcomes as reported
from modeldeploy.engine.database import Database
from modeldeploy.engine.journal_tables import COLUMNS, dump, insert_events, to_record, to_row
from modeldeploy.engine.leases import LEASE_S
from modeldeploy.engine.owners import describe, lives, new_owner, whoami
from modeldeploy.engine.record import Command, HistoryEntry, HistoryLine, Kind, Record, Verb
from modeldeploy.errors import ConfigurationError, ConflictError, NotFoundError
from modeldeploy.stats.means import Tally
from modeldeploy.values.codec import from_json
from modeldeploy.values.events import Event
from modeldeploy.values.ticket import Phase

__all__ = ["LEASE_S", "Journal", "new_owner", "whoami"]


class Journal:
    """The journal in the file ``path``; without a path it lives in memory and ends with the process.

    ``lease`` is how many seconds a silent driver keeps its operation.
    """

    def __init__(
        self, path: Path | None = None, *, lease: float = LEASE_S, clock: Callable[[], float] = time.time
    ) -> None:
        if not 0 < lease < math.inf:
            message = f"lease is {lease!r}, not a number of seconds above 0"
            raise ConfigurationError(message, hint=f"the default is {LEASE_S:g}")
        self.path = path
        self.lease = lease
        self._clock = clock
        self._db = Database(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Operations

    def create(
        self,
        record: Record,
        *,
        supersede: str | None = None,
        owner: str | None = None,
        events: Iterable[Event] = (),
    ) -> Record:
        """Write a new operation. ConflictError while another one is unfinished on the same target, unless it is the superseded one.

        The superseded operation ends here, in the same transaction, and its driver is fenced off. ``owner`` is the driver from the start.
        """
        at = self._clock()
        new = attrs.evolve(record, seq=1, created=at, updated=at, who=record.who or whoami())
        with self._db.transaction() as connection:
            if supersede is not None:
                connection.execute(
                    "UPDATE operation SET phase=?, outcome=?, seq=seq+1, updated=?, owner=NULL WHERE id=? AND phase=?",
                    (Phase.CANCELLED, f"superseded by {record.id}", at, supersede, Phase.RUNNING),
                )
            _refuse_unfinished(connection, record)
            marks = ", ".join("?" * 14)
            connection.execute(
                f"INSERT INTO operation ({COLUMNS}, owner, lease_until) VALUES ({marks})",  # noqa: S608 - constants
                (*to_row(new), owner, at + self.lease if owner else 0),
            )
            insert_events(connection, events)
        return new

    def read(self, operation: str) -> Record:
        """Read one operation; NotFoundError when there is none."""
        rows = self._db.read(f"SELECT {COLUMNS} FROM operation WHERE id=?", operation)  # noqa: S608 - constants
        if not rows:
            message = f"no operation {operation!r} in journal {str(self.path or 'in memory')!r}"
            raise NotFoundError(message, hint="Operation.unfinished() lists what is still going on")
        return to_record(rows[0])

    def unfinished(self, *, backend: str | None = None, target: str | None = None) -> tuple[Record, ...]:
        """List what has not ended, oldest first."""
        rows = self._db.read(
            f"SELECT {COLUMNS} FROM operation WHERE phase=? AND (? IS NULL OR backend=?) AND (? IS NULL OR target=?)"  # noqa: S608
            " ORDER BY created, id",
            Phase.RUNNING, backend, backend, target, target,
        )  # fmt: skip
        return tuple(to_record(row) for row in rows)

    def latest(self, *, backend: str, target: str, kind: Kind) -> Record | None:
        """Find the newest operation of a kind on a target."""
        rows = self._db.read(
            f"SELECT {COLUMNS} FROM operation WHERE backend=? AND target=? AND kind=? ORDER BY created DESC, id DESC LIMIT 1",  # noqa: S608
            backend, target, kind,
        )  # fmt: skip
        return to_record(rows[0]) if rows else None

    def save(
        self, record: Record, *, events: Iterable[Event] = (), history: HistoryEntry | None = None, keep: bool = True
    ) -> Record:
        """Write the record if nobody changed it since it was read; FencedError otherwise.

        ``keep`` renews the driver's lease; without it the operation is given back.
        """
        at = self._clock()
        new = attrs.evolve(record, seq=record.seq + 1, updated=at)
        with self._db.transaction() as connection:
            done = connection.execute(
                "UPDATE operation SET cursor=?, phase=?, outcome=?, seq=?, updated=?, lease_until=?,"
                " owner=CASE WHEN ? THEN owner END WHERE id=? AND seq=?",
                (
                    dump(new.cursor),
                    new.phase,
                    new.outcome,
                    new.seq,
                    at,
                    at + self.lease if keep else 0,
                    keep,
                    new.id,
                    record.seq,
                ),
            )
            if done.rowcount != 1:
                raise leases.fenced(record)
            insert_events(connection, events)
            if history is not None:
                chained.append(connection, new, history, at)
        return new

    # Leases

    def acquire(self, operation: str, owner: str) -> Record:
        """Make ``owner`` the driver; ConflictError names a living one. Changes ``seq`` and so fences off one that was frozen."""
        at = self._clock()
        with self._db.transaction() as connection:
            return leases.acquire(connection, operation, owner, at=at, until=at + self.lease)

    def renew(self, record: Record) -> None:
        """Say that the driver still lives; FencedError when it was fenced off."""
        with self._db.transaction() as connection:
            leases.renew(connection, record, self._clock() + self.lease)

    def check(self, record: Record) -> None:
        """Raise FencedError when somebody else wrote the record since, without waiting for anybody."""
        if self._db.read("SELECT seq FROM operation WHERE id=?", record.id) != [(record.seq,)]:
            raise leases.fenced(record)

    def release(self, record: Record, *, events: Iterable[Event] = ()) -> None:
        """Stop being the driver; nothing happens, and no event is written, if somebody else is it by now."""
        with self._db.transaction() as connection:
            if leases.release(connection, record):
                insert_events(connection, events)

    def driver(self, operation: str) -> str:
        """Say in words who drives the operation now; empty when nobody does."""
        rows = self._db.read("SELECT owner, lease_until FROM operation WHERE id=?", operation)
        owner, until = rows[0] if rows else (None, 0)
        return describe(owner) if owner and lives(owner, until or 0, self._clock()) else ""

    def driven(self, operation: str) -> bool:
        """Whether a living driver holds the operation now."""
        return bool(self.driver(operation))

    # Commands, events

    def tell(self, operation: str, verb: Verb, reason: str) -> None:
        """Leave a command for whoever drives the operation."""
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT INTO command (operation, verb, reason, who, at) VALUES (?, ?, ?, ?, ?)",
                (operation, verb, reason, whoami(), self._clock()),
            )

    def commands(self, operation: str, *, after: int = 0) -> tuple[Command, ...]:
        """Read the commands after the one with this number."""
        rows = self._db.read(
            "SELECT number, verb, reason, who, at FROM command WHERE operation=? AND number>? ORDER BY number",
            operation, after,
        )  # fmt: skip
        return tuple(Command(number, Verb(verb), reason, who, at) for number, verb, reason, who, at in rows)

    def events(self, operation: str, *, skip: int = 0) -> tuple[Event, ...]:
        """Read what happened in an operation, oldest first, without the first ``skip``: a long one has thousands."""
        rows = self._db.read(
            "SELECT body FROM event WHERE operation=? ORDER BY number LIMIT -1 OFFSET ?", operation, skip
        )
        return tuple(from_json(Event, json.loads(body)) for (body,) in rows)

    # Outcomes

    def record_outcomes(self, operation: str, rows: Iterable[reported.Row]) -> int:
        """Write outcomes as (unit, revision, value between 0 and 1) and count the new ones.

        The first value of a unit stays, so repeating is safe. InvalidRequestError names a unit whose value is not a finite number in [0, 1];
        nothing is written then.
        """
        known = reported.checked(rows)
        with self._db.transaction() as connection:
            return reported.insert(connection, operation, known, self._clock())

    def outcomes(self, operation: str) -> dict[str, Tally]:
        """Sum up the outcomes of each revision."""
        return reported.tallies(self._db.read(reported.READ, operation))

    # History

    def history(self, *, backend: str, target: str) -> tuple[HistoryLine, ...]:
        """Read an endpoint's history, oldest first."""
        return tuple(chained.line(*row) for row in self._db.read(chained.READ, backend, target))

    def verify_history(self, *, backend: str, target: str) -> int:
        """Check the hash chain of an endpoint's history and count its lines; ConflictError names what was changed or is missing."""
        return chained.verify(target, self._db.read(chained.READ_WITH_HEAD, backend, target))


def _refuse_unfinished(connection: sqlite3.Connection, record: Record) -> None:
    other = connection.execute(
        "SELECT id, kind FROM operation WHERE backend=? AND target=? AND phase=?",
        (record.backend, record.target, Phase.RUNNING),
    ).fetchone()
    if other is not None:
        message = f"{other[1]} {other[0]!r} of {record.target!r} is not finished"
        hint = f"take it up with Operation.get({other[0]!r}), or end it by abort() or endpoint.rollback()"
        raise ConflictError(message, hint=hint)
