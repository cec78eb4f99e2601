"""The history of endpoints: lines that are only appended, each chained to the one before by a hash."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import Any

from modeldeploy.engine.journal_tables import dump
from modeldeploy.engine.owners import whoami
from modeldeploy.engine.record import HistoryEntry, HistoryLine, Record
from modeldeploy.errors import ConflictError
from modeldeploy.values.codec import to_json

READ = "SELECT number, body, chain FROM history WHERE backend=? AND target=? ORDER BY number"


def append(connection: sqlite3.Connection, record: Record, entry: HistoryEntry, at: float) -> None:
    """Append a line to the history of the record's target, within the caller's transaction."""
    last = connection.execute(
        "SELECT number, chain FROM history WHERE backend=? AND target=? ORDER BY number DESC LIMIT 1",
        (record.backend, record.target),
    ).fetchone()
    number, chain = last or (0, "")
    body = dump({"at": at, "who": whoami(), "operation": record.id, "entry": to_json(entry)})
    connection.execute(
        "INSERT INTO history (backend, target, number, body, chain) VALUES (?, ?, ?, ?, ?)",
        (record.backend, record.target, number + 1, body, _link(chain, body)),
    )


def line(number: int, body: str, chain: str) -> HistoryLine:
    """Make a line of what is stored."""
    data: dict[str, Any] = json.loads(body)
    # Written by ourselves and long for an old endpoint: a rollback reads all of it and must not wait.
    return HistoryLine(number=number, chain=chain, entry=HistoryEntry(**data.pop("entry")), **data)


def verify(target: str, rows: list[tuple[int, str, str]]) -> int:
    """Check the chain of all lines and count them; ConflictError names the first line that was changed."""
    chain = ""
    for expected, (number, body, written) in enumerate(rows, start=1):
        chain = _link(chain, body)
        if number != expected or chain != written:
            message = f"history of {target!r} was changed at line {expected}"
            raise ConflictError(message, hint="restore the journal from a backup")
    return len(rows)


def _link(chain: str, body: str) -> str:
    return hashlib.sha256(f"{chain}\n{body}".encode()).hexdigest()
