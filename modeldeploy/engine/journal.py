"""The journal: one SQLite file (WAL) that remembers what was intended, so that any process can take it up.

Rows change only by compare-and-swap on ``seq``. A driver owns an operation by a lease; taking a lease changes ``seq``, which fences off
whoever held it before, however long that one was frozen. No secrets and no payloads are stored.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import secrets
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.engine.record import Command, HistoryEntry, HistoryLine, Kind, Record, Verb
from modeldeploy.errors import ConfigurationError, ConflictError, FencedError, NotFoundError, QuotaError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.events import Event
from modeldeploy.values.ticket import Phase

SCHEMA = 1
LEASE_S = 60.0
"""How long a silent driver on another machine keeps its operation; one on this machine loses it with its process."""

_PATIENCE_S = 30.0
"""How long another process may hold the file."""

_TABLES = """
CREATE TABLE IF NOT EXISTS operation (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, backend TEXT NOT NULL, target TEXT NOT NULL, cursor TEXT NOT NULL,
    phase TEXT NOT NULL, outcome TEXT NOT NULL, seq INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
    who TEXT NOT NULL, reason TEXT NOT NULL, owner TEXT, lease_until REAL
);
CREATE INDEX IF NOT EXISTS operation_target ON operation (backend, target, phase);
CREATE TABLE IF NOT EXISTS command (
    number INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, verb TEXT NOT NULL, reason TEXT NOT NULL,
    who TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS event (number INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_operation ON event (operation, number);
CREATE TABLE IF NOT EXISTS history (
    backend TEXT NOT NULL, target TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, chain TEXT NOT NULL,
    PRIMARY KEY (backend, target, number)
);
"""
_COLUMNS = "id, kind, backend, target, cursor, phase, outcome, seq, created, updated, who, reason"


_inherited: list[sqlite3.Connection] = []


class Journal:
    """The journal in the file ``path``; without a path it lives in memory and ends with the process."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        try:
            schema = self._prepare(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            message = f"journal {str(self.path)!r} cannot be read: {error}"
            raise ConfigurationError(message, hint="make it writable, or move it away to begin a new one") from error
        if schema not in {0, SCHEMA}:
            connection.close()
            message = f"journal {str(self.path)!r} has schema {schema}, this version of modeldeploy reads {SCHEMA}"
            raise ConfigurationError(message, hint="use the version of modeldeploy that wrote it, or a newer one")
        if schema == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
        # Python 3.13 warns of a connection that is collected open. Not at exit: a thread may still be driving then.
        weakref.finalize(self, _close, connection, os.getpid()).atexit = False
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> int:
        if self.path is not None:
            self.path.chmod(0o600)
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=FULL")
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        return int(schema)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._leave_parent()
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                # On a full disk SQLite has rolled back by itself, and its own complaint would hide the reason.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                    message = f"journal {str(self.path)!r} cannot be written: {error}"
                    raise QuotaError(message, hint="free some space, then do the same again") from error
                raise

    def _read(self, sql: str, *arguments: object) -> list[Any]:
        self._leave_parent()
        with self._lock:
            return self._connection.execute(sql, arguments).fetchall()

    def _leave_parent(self) -> None:
        """After a fork, open the file anew: neither a connection nor a lock that a thread of the parent holds may be used here."""
        if self._pid != os.getpid():
            # Closing the parent's connection here could remove the log that the parent still writes.
            _inherited.append(self._connection)
            self._pid, self._lock = os.getpid(), threading.RLock()
            if self.path is not None:
                self._connection = self._open()

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
        with self._transaction() as connection:
            if supersede is not None:
                connection.execute(
                    "UPDATE operation SET phase=?, outcome=?, seq=seq+1, updated=?, owner=NULL WHERE id=? AND phase=?",
                    (Phase.CANCELLED, f"superseded by {record.id}", at, supersede, Phase.RUNNING),
                )
            _refuse_unfinished(connection, record)
            marks = ", ".join("?" * 14)
            connection.execute(
                f"INSERT INTO operation ({_COLUMNS}, owner, lease_until) VALUES ({marks})",  # noqa: S608 - constants
                (*_row(new), owner, at + LEASE_S if owner else 0),
            )
            _insert_events(connection, events)
        return new

    def read(self, operation: str) -> Record:
        """Read one operation; NotFoundError when there is none."""
        rows = self._read(f"SELECT {_COLUMNS} FROM operation WHERE id=?", operation)  # noqa: S608 - constants
        if not rows:
            message = f"no operation {operation!r} in journal {str(self.path or 'in memory')!r}"
            raise NotFoundError(message, hint="Operation.unfinished() lists what is still going on")
        return _record(rows[0])

    def unfinished(self, *, backend: str | None = None, target: str | None = None) -> tuple[Record, ...]:
        """List what has not ended, oldest first."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM operation WHERE phase=? AND (? IS NULL OR backend=?) AND (? IS NULL OR target=?)"  # noqa: S608
            " ORDER BY created, id",
            Phase.RUNNING, backend, backend, target, target,
        )  # fmt: skip
        return tuple(_record(row) for row in rows)

    def latest(self, *, backend: str, target: str, kind: Kind) -> Record | None:
        """Find the newest operation of a kind on a target."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM operation WHERE backend=? AND target=? AND kind=? ORDER BY created DESC, id DESC LIMIT 1",  # noqa: S608
            backend, target, kind,
        )  # fmt: skip
        return _record(rows[0]) if rows else None

    def save(
        self, record: Record, *, events: Iterable[Event] = (), history: HistoryEntry | None = None, keep: bool = True
    ) -> Record:
        """Write the record if nobody changed it since it was read; FencedError otherwise.

        ``keep`` renews the driver's lease; without it the operation is given back.
        """
        at = self._clock()
        new = attrs.evolve(record, seq=record.seq + 1, updated=at)
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE operation SET cursor=?, phase=?, outcome=?, seq=?, updated=?, lease_until=?,"
                " owner=CASE WHEN ? THEN owner END WHERE id=? AND seq=?",
                (
                    _dump(new.cursor),
                    new.phase,
                    new.outcome,
                    new.seq,
                    at,
                    at + LEASE_S if keep else 0,
                    keep,
                    new.id,
                    record.seq,
                ),
            )
            if done.rowcount != 1:
                raise _fenced(record)
            _insert_events(connection, events)
            if history is not None:
                _append_history(connection, new, history, at)
        return new

    # Leases

    def acquire(self, operation: str, owner: str) -> Record:
        """Make ``owner`` the driver; ConflictError names a living one. Changes ``seq`` and so fences off one that was frozen."""
        at = self._clock()
        with self._transaction() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS}, owner, lease_until FROM operation WHERE id=?",  # noqa: S608 - constants
                (operation,),
            ).fetchone()
            if row is None:
                message = f"no operation {operation!r}"
                raise NotFoundError(message)
            *plain, holder, until = row
            record = _record(tuple(plain))
            if record.phase.ended:
                message = f"operation {operation!r} has ended: {record.phase.value}, {record.outcome}"
                raise ConflictError(message, hint="begin a new one", context={"operation": operation})
            if holder and holder != owner and _lives(holder, until or 0, at):
                message = f"operation {operation!r} is driven by {_describe(holder)}"
                raise ConflictError(
                    message, hint="follow it with Operation.get(id).wait()", context={"operation": operation}
                )
            connection.execute(
                "UPDATE operation SET owner=?, lease_until=?, seq=seq+1 WHERE id=?", (owner, at + LEASE_S, operation)
            )
        return attrs.evolve(record, seq=record.seq + 1)

    def renew(self, record: Record) -> None:
        """Say that the driver still lives; FencedError when it was fenced off."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE operation SET lease_until=? WHERE id=? AND seq=?",
                (self._clock() + LEASE_S, record.id, record.seq),
            )
            if done.rowcount != 1:
                raise _fenced(record)

    def release(self, record: Record, *, events: Iterable[Event] = ()) -> None:
        """Stop being the driver; nothing happens if somebody else is it by now."""
        with self._transaction() as connection:
            _insert_events(connection, events)
            connection.execute(
                "UPDATE operation SET owner=NULL, lease_until=0 WHERE id=? AND seq=?", (record.id, record.seq)
            )

    def driven(self, operation: str) -> bool:
        """Whether a living driver holds the operation now."""
        rows = self._read("SELECT owner, lease_until FROM operation WHERE id=?", operation)
        return bool(rows and rows[0][0] and _lives(rows[0][0], rows[0][1] or 0, self._clock()))

    # Commands, events, history

    def tell(self, operation: str, verb: Verb, reason: str) -> None:
        """Leave a command for whoever drives the operation."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO command (operation, verb, reason, who, at) VALUES (?, ?, ?, ?, ?)",
                (operation, verb, reason, whoami(), self._clock()),
            )

    def commands(self, operation: str, *, after: int = 0) -> tuple[Command, ...]:
        """Read the commands after the one with this number."""
        rows = self._read(
            "SELECT number, verb, reason, who, at FROM command WHERE operation=? AND number>? ORDER BY number",
            operation, after,
        )  # fmt: skip
        return tuple(Command(number, Verb(verb), reason, who, at) for number, verb, reason, who, at in rows)

    def events(self, operation: str) -> tuple[Event, ...]:
        """Read what happened in an operation, oldest first."""
        rows = self._read("SELECT body FROM event WHERE operation=? ORDER BY number", operation)
        return tuple(from_json(Event, json.loads(body)) for (body,) in rows)

    def history(self, *, backend: str, target: str) -> tuple[HistoryLine, ...]:
        """Read an endpoint's history, oldest first."""
        rows = self._read(
            "SELECT number, body, chain FROM history WHERE backend=? AND target=? ORDER BY number", backend, target
        )
        return tuple(_history_line(*row) for row in rows)

    def verify_history(self, *, backend: str, target: str) -> int:
        """Check the hash chain of an endpoint's history and count its lines; ConflictError names the first line that was changed."""
        chain = ""
        rows = self._read(
            "SELECT number, body, chain FROM history WHERE backend=? AND target=? ORDER BY number", backend, target
        )
        for expected, (number, body, written) in enumerate(rows, start=1):
            chain = _link(chain, body)
            if number != expected or chain != written:
                message = f"history of {target!r} was changed at line {expected}"
                raise ConflictError(message, hint="restore the journal from a backup")
        return len(rows)


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        connection.close()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log; SQLite does not wait for another process that switches the same new file."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.005)
        else:
            return


def _refuse_unfinished(connection: sqlite3.Connection, record: Record) -> None:
    other = connection.execute(
        "SELECT id, kind FROM operation WHERE backend=? AND target=? AND phase=?",
        (record.backend, record.target, Phase.RUNNING),
    ).fetchone()
    if other is not None:
        message = f"{other[1]} {other[0]!r} of {record.target!r} is not finished"
        raise ConflictError(message, hint=f"wait for it, or take it up with Operation.get({other[0]!r})")


def _fenced(record: Record) -> FencedError:
    message = f"operation {record.id!r} was taken over or changed by somebody else"
    return FencedError(message, hint="this driver stops; the other one goes on", context={"operation": record.id})


def whoami() -> str:
    """Say who acts: ``user@host``."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def new_owner() -> str:
    """Name a new driver in this process: host, process id, and a token of its own."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def _lives(owner: str, until: float, at: float) -> bool:
    host, pid, _token = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return at < until
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return at < until


def _describe(owner: str) -> str:
    host, pid, _token = owner.rsplit(":", 2)
    return f"process {pid} on {host}"


def _dump(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _row(record: Record) -> tuple[Any, ...]:
    values = {**to_json(record), "cursor": _dump(record.cursor)}
    return tuple(values[column] for column in _COLUMNS.split(", "))


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return from_json(Record, {**values, "cursor": json.loads(values["cursor"])})


def _insert_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    connection.executemany(
        "INSERT INTO event (operation, body) VALUES (?, ?)",
        [(event.operation, _dump(to_json(event))) for event in events],
    )


def _append_history(connection: sqlite3.Connection, record: Record, entry: HistoryEntry, at: float) -> None:
    last = connection.execute(
        "SELECT number, chain FROM history WHERE backend=? AND target=? ORDER BY number DESC LIMIT 1",
        (record.backend, record.target),
    ).fetchone()
    number, chain = last or (0, "")
    body = _dump({"at": at, "who": whoami(), "operation": record.id, "entry": to_json(entry)})
    connection.execute(
        "INSERT INTO history (backend, target, number, body, chain) VALUES (?, ?, ?, ?, ?)",
        (record.backend, record.target, number + 1, body, _link(chain, body)),
    )


def _link(chain: str, body: str) -> str:
    return hashlib.sha256(f"{chain}\n{body}".encode()).hexdigest()


def _history_line(number: int, body: str, chain: str) -> HistoryLine:
    data: dict[str, Any] = json.loads(body)
    # Written by ourselves and long for an old endpoint: a rollback reads all of it and must not wait.
    return HistoryLine(number=number, chain=chain, entry=HistoryEntry(**data.pop("entry")), **data)
