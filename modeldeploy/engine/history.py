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

_REMEDY = "restore the journal from a backup"
READ = "SELECT number, body, chain FROM history WHERE backend=? AND target=? ORDER BY number"
READ_WITH_HEAD = """
SELECT number, body, chain FROM (
    SELECT 0 AS head, number, body, chain FROM history WHERE backend=?1 AND target=?2
    UNION ALL SELECT 1, number, NULL, chain FROM head WHERE backend=?1 AND target=?2
) ORDER BY head, number
"""
"""In one statement, so that nobody can append between the lines and the head, which comes last and has no body."""


def append(connection: sqlite3.Connection, record: Record, entry: HistoryEntry, at: float) -> None:
    """Append a line to the history of the record's target and move the head to it, within the caller's transaction."""
    where = (record.backend, record.target)
    number, chain = _head(connection, where)
    body = dump({"at": at, "who": whoami(), "operation": record.id, "entry": to_json(entry)})
    new = (*where, number + 1, _link(chain, body))
    # From the head, never from the last line there: else a history whose end was cut off would close over the cut.
    connection.execute(
        "INSERT INTO history (backend, target, number, chain, body) VALUES (?, ?, ?, ?, ?)", (*new, body)
    )
    connection.execute("INSERT OR REPLACE INTO head (backend, target, number, chain) VALUES (?, ?, ?, ?)", new)


def _head(connection: sqlite3.Connection, where: tuple[str, str]) -> tuple[int, str]:
    found = connection.execute("SELECT number, chain FROM head WHERE backend=? AND target=?", where).fetchone()
    return found or (0, "")


def line(number: int, body: str, chain: str) -> HistoryLine:
    """Make a line of what is stored."""
    data: dict[str, Any] = json.loads(body)
    # Written by ourselves and long for an old endpoint: a rollback reads all of it and must not wait.
    return HistoryLine(number=number, chain=chain, entry=HistoryEntry(**data.pop("entry")), **data)


def verify(target: str, rows: list[tuple[int, str | None, str]]) -> int:
    """Check the rows of ``READ_WITH_HEAD`` and count the lines; ConflictError names what is missing or the first line that was changed.

    The chain shows what was changed or taken from its middle, the head what was cut off at its end. Who may write the file can make both
    anew: whoever must rule that out keeps the last line's ``chain`` somewhere else.
    """
    written = [(number, body, chain) for number, body, chain in rows if body is not None]
    count, last = next(((number, chain) for number, body, chain in rows if body is None), (0, ""))
    before = ""
    for expected, (number, body, chain) in enumerate(written, start=1):
        if number != expected:
            raise _missing(target, expected, number - 1)
        before = _link(before, body)
        if chain != before or number > count:
            raise _changed(target, number)
    if count > len(written):
        raise _missing(target, len(written) + 1, count)
    if before != last:
        raise _changed(target, count)
    return count


def _missing(target: str, first: int, last: int) -> ConflictError:
    which = f"line {first} is" if first == last else f"lines {first} to {last} are"
    return ConflictError(f"history of {target!r} is not whole: {which} missing", hint=_REMEDY)


def _changed(target: str, number: int) -> ConflictError:
    return ConflictError(f"history of {target!r} was changed at line {number}", hint=_REMEDY)


def _link(chain: str, body: str) -> str:
    return hashlib.sha256(f"{chain}\n{body}".encode()).hexdigest()
