"""The journal's file: SQLite with a write-ahead log, shared by the threads of a process and opened anew after a fork."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modeldeploy.engine.journal_tables import SCHEMA, TABLES
from modeldeploy.errors import ConfigurationError, QuotaError, UnavailableError

_PATIENCE_S = 30.0
"""How long another process may hold the file."""

_inherited: list[sqlite3.Connection] = []


class Database:
    """The file ``path``; without a path all is in memory and ends with the process."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
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
        if schema > SCHEMA:
            connection.close()
            message = (
                f"journal {str(self.path)!r} has schema {schema}, this version of modeldeploy reads up to {SCHEMA}"
            )
            raise ConfigurationError(message, hint="use the version of modeldeploy that wrote it, or a newer one")
        # Python 3.13 warns of a connection that is collected open. Not at exit: a thread may still be driving then.
        weakref.finalize(self, _close, connection, os.getpid()).atexit = False
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> int:
        if self.path is not None:
            self.path.chmod(0o600)
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=FULL")
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema < SCHEMA:
            # Each statement may be repeated: another process may be doing the same.
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
        return int(schema)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for writes that become durable together, or not at all.

        QuotaError on a full disk; UnavailableError when another process holds the file for longer than the patience.
        """
        self._leave_parent()
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite has rolled back by itself, and its own complaint would hide the reason.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in our words what SQLite says of the disk and of the others."""
        try:
            yield
        except sqlite3.OperationalError as error:
            message = f"journal {str(self.path)!r} cannot be written: {error}"
            if "full" in str(error):
                raise QuotaError(message, hint="free some space, then do the same again") from error
            if "locked" in str(error):
                hint = "another process holds it, or is frozen while it writes"
                raise UnavailableError(message, hint=hint) from error
            raise

    def read(self, sql: str, *arguments: object) -> list[Any]:
        """Give all rows of a query."""
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
