"""Labelled outcomes of an A/B test: what users reported of each unit's answer, between 0 and 1; the first report of a unit counts."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable

from modeldeploy.errors import InvalidRequestError
from modeldeploy.stats.means import Tally

Row = tuple[str, str, float]
"""Unit, revision, value."""


def checked(rows: Iterable[Row]) -> list[Row]:
    """Give the rows with plain floats; InvalidRequestError names the first unit that is wrong."""
    return [(_name(unit), revision, _value(unit, value)) for unit, revision, value in rows]


def insert(connection: sqlite3.Connection, operation: str, rows: list[Row], at: float) -> int:
    """Write what is not known yet, within the caller's transaction, and count it."""
    before = connection.total_changes
    connection.executemany(
        "INSERT OR IGNORE INTO outcome (operation, unit, revision, value, at) VALUES (?, ?, ?, ?, ?)",
        [(operation, unit, revision, value, at) for unit, revision, value in rows],
    )
    return connection.total_changes - before


READ = "SELECT revision, count(*), total(value), total(value * value) FROM outcome WHERE operation=? GROUP BY revision"


def tallies(rows: Iterable[tuple[str, int, float, float]]) -> dict[str, Tally]:
    """Make one tally for each revision from the rows of ``READ``."""
    return {revision: Tally(count, total, squares) for revision, count, total, squares in rows}


def _name(unit: object) -> str:
    if isinstance(unit, str) and unit:
        return unit
    message = f"outcome of unit {unit!r}: a unit is a text that is not empty"
    raise InvalidRequestError(message, field="unit", hint="use the request's key, or another name that it has once")


def _value(unit: str, value: object) -> float:
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]  # asked for here
    except (TypeError, ValueError):
        number = math.nan
    if 0 <= number <= 1:
        return number
    message = f"outcome of unit {unit!r} is {value!r}, not a number between 0 and 1"
    raise InvalidRequestError(message, field="value", hint="scale what is measured to 0-1; 1 is best")
