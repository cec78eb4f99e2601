"""The history: each endpoint has its own, and whatever is done to it behind the journal's back is told by the line."""

from __future__ import annotations

import sqlite3
import threading

import attrs
import pytest

from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import HistoryEntry, Kind, Record
from modeldeploy.errors import ConflictError
from modeldeploy.values.ticket import Phase


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path):
    made = Journal(path)
    yield made
    made.close()


def entry(revision):
    return HistoryEntry("promoted", revision, "because", {"n": 1})


def append(journal, name, target="iris"):
    made = journal.create(Record(name, Kind.ROLLOUT, "memory", target, {}))
    journal.save(attrs.evolve(made, phase=Phase.SUCCEEDED), history=entry(name), keep=False)


def verify(journal, target="iris"):
    return journal.verify_history(backend="memory", target=target)


@pytest.fixture
def tamper(journal, path):
    """Give ``tamper(sql)``, after three lines were written."""

    def change(sql):
        other = sqlite3.connect(path)
        other.executescript(sql)
        other.close()

    for number in range(3):
        append(journal, f"rollout-{number}")
    return change


def test_each_endpoint_has_a_history_of_its_own(journal):
    for number in range(3):
        append(journal, f"rollout-{number}")
    append(journal, "other-1", target="other")
    lines = journal.history(backend="memory", target="iris")
    assert [(line.number, line.operation) for line in lines] == [(1, "rollout-0"), (2, "rollout-1"), (3, "rollout-2")]
    assert lines[0].entry == entry("rollout-0")
    assert [verify(journal, target) for target in ("iris", "other", "none")] == [3, 1, 0]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE history SET body=replace(body, 'because', 'nothing') WHERE number=2", "was changed at line 2"),
        ("UPDATE history SET chain='0' WHERE number=3", "was changed at line 3"),
        ("DELETE FROM history WHERE number=1", "line 1 is missing"),
        ("DELETE FROM history WHERE number=2", "line 2 is missing"),
        ("DELETE FROM history WHERE number=2; UPDATE history SET number=2 WHERE number=3", "was changed at line 2"),
        ("DELETE FROM history WHERE number=3", "line 3 is missing"),
        ("DELETE FROM history WHERE number>1", "lines 2 to 3 are missing"),
        ("DELETE FROM history", "lines 1 to 3 are missing"),
        ("DELETE FROM head", "was changed at line 1"),
        ("UPDATE head SET number=2", "was changed at line 3"),
        ("UPDATE head SET chain='0'", "was changed at line 3"),
    ],
)
def test_a_history_that_was_changed_is_noticed_by_the_line(journal, tamper, sql, told):
    tamper(sql)
    with pytest.raises(ConflictError, match=told):
        verify(journal)


def test_what_is_appended_later_does_not_close_a_cut(journal, tamper):
    tamper("DELETE FROM history WHERE number=3")
    append(journal, "rollout-3")
    assert [line.number for line in journal.history(backend="memory", target="iris")] == [1, 2, 4]
    with pytest.raises(ConflictError, match="line 3 is missing"):
        verify(journal)


def test_lines_that_another_writes_meanwhile_are_no_change(journal, path):
    """Lines and head are read as they were at one moment."""

    def write():
        other = Journal(path)
        for number in range(50):
            append(other, f"rollout-{number}")
        other.close()

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    while thread.is_alive():
        seen.append(verify(journal))
    thread.join()
    assert seen == sorted(seen)
    assert verify(journal) == 50


def test_a_journal_of_before_the_heads_is_read_and_guarded_from_then_on(journal, tamper, path):
    tamper("DROP TABLE head; DROP TABLE outcome; PRAGMA user_version=1")
    journal.close()
    newer = Journal(path)
    assert verify(newer) == 3
    append(newer, "rollout-3")
    assert verify(newer) == 4
    assert newer.record_outcomes("rollout-3", [("a", "v1", 1.0)]) == 1
    tamper("DELETE FROM history WHERE number=4")
    with pytest.raises(ConflictError, match="line 4 is missing"):
        verify(newer)
    newer.close()
