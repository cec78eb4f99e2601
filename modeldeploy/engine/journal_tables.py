"""The journal's tables, and what stands in them to values and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from modeldeploy.engine.record import Record
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.events import Event

SCHEMA = 2
"""1 had no outcomes and no heads of histories. A journal of an older number is brought up to this one when it is opened."""

TABLES = """
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
CREATE TABLE IF NOT EXISTS outcome (
    operation TEXT NOT NULL, unit TEXT NOT NULL, revision TEXT NOT NULL, value REAL NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (operation, unit)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS head (
    backend TEXT NOT NULL, target TEXT NOT NULL, number INTEGER NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (backend, target)
) WITHOUT ROWID;
INSERT OR IGNORE INTO head (backend, target, number, chain)
    SELECT backend, target, number, chain FROM history AS line WHERE number =
    (SELECT max(number) FROM history WHERE backend = line.backend AND target = line.target);
"""
COLUMNS = "id, kind, backend, target, cursor, phase, outcome, seq, created, updated, who, reason"


def dump(data: object) -> str:
    """Write plain JSON as it is stored, always the same for the same data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_row(record: Record) -> tuple[Any, ...]:
    """Give the values of ``COLUMNS``."""
    values = {**to_json(record), "cursor": dump(record.cursor)}
    return tuple(values[column] for column in COLUMNS.split(", "))


def to_record(row: tuple[Any, ...]) -> Record:
    """Make the record from the values of ``COLUMNS``."""
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    return from_json(Record, {**values, "cursor": json.loads(values["cursor"])})


def insert_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Append events, within the caller's transaction."""
    connection.executemany(
        "INSERT INTO event (operation, body) VALUES (?, ?)",
        [(event.operation, dump(to_json(event))) for event in events],
    )
