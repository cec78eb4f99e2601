"""The audit log on real files, full devices and pipes that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from modeldeploy.errors import IntegrityError, NotFoundError
from modeldeploy.serving import audit_file
from modeldeploy.serving.audit import AuditLog, Note, clean
from modeldeploy.serving.audit_file import AuditFile, verify


def note(status: int = 200, **changes) -> Note:
    fields = {
        "at": 1_700_000_000.25, "endpoint": "iris", "key": "", "client": "127.0.0.1", "method": "POST", "path": "/score", "status": status,
        "revision": "v1", "rows": "1", "received": 10, "sent": 20, "ms": 1.23456, "request": "",
    }  # fmt: skip
    return Note(**{**fields, **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def entries(path) -> list[dict]:
    return [json.loads(line) for line in audit_file.lines(path)]


def test_notes_become_lines_in_their_order_with_a_chain(path):
    log = AuditLog(path)
    for status in (200, 401, 500):
        log.add(note(status))
    log.close()
    first, *lines = entries(path)
    assert first["before"] == ""
    assert [line["status"] for line in lines] == [200, 401, 500]
    assert [line["n"] for line in (first, *lines)] == [1, 2, 3, 4]
    assert lines[0]["at"] == "2023-11-14T22:13:20.250+00:00"
    assert (lines[0]["rows"], lines[0]["ms"]) == (1, 1.235)
    assert (log.written, log.dropped) == (3, 0)
    assert verify(path) == audit_file.Verified(4, lines[-1]["chain"], 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_reach_the_file_without_being_asked_for(path, wait_until):
    log = AuditLog(path, flush_s=0.01)
    log.add(note())
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)
    log.close()


def test_the_chain_goes_on_after_a_restart(path):
    for status in (200, 201):
        log = AuditLog(path)
        log.add(note(status))
        log.close()
    assert [line["n"] for line in entries(path)] == [1, 2, 3]
    assert verify(path).lines == 3


def test_a_line_torn_by_a_kill_is_cut_off_and_the_chain_goes_on(path):
    log = AuditLog(path)
    log.add(note())
    log.close()
    with path.open("ab") as stream:
        stream.write(b'{"n":3,"at":"20')
    assert verify(path).lines == 2
    log = AuditLog(path)
    log.add(note(201))
    log.close()
    assert [line.get("status") for line in entries(path)] == [None, 200, 201]
    assert verify(path).lines == 3


def test_files_turn_over_by_size_and_the_chain_goes_through_them(path):
    file = AuditFile(path, max_bytes=2_000, kept=9)
    for status in range(200, 240):
        file.append([note(status).line()])
    file.close()
    assert len(list(path.parent.glob("audit.jsonl*"))) > 3
    assert all(each.stat().st_size <= 2_000 for each in path.parent.glob("audit.jsonl*"))
    assert [line["status"] for line in entries(path) if "status" in line] == list(range(240 - 40, 240))
    assert verify(path).chain == entries(path)[-1]["chain"]
    # The oldest may go; a gap may not.
    oldest = max(path.parent.glob("audit.jsonl.*"), key=lambda each: int(each.suffix[1:]))
    oldest.unlink()
    assert verify(path).lines < 40 + 10
    path.with_name("audit.jsonl.1").unlink()
    with pytest.raises(IntegrityError, match="or is missing"):
        verify(path)


def _written(path, count: int = 6) -> list[bytes]:
    file = AuditFile(path)
    file.append([note(200 + at).line() for at in range(count)])
    file.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("at", range(7))
def test_a_changed_byte_in_any_line_is_found(path, at):
    lines = _written(path)
    for position in range(0, len(lines[at]) - 1, 7):
        changed = bytearray(lines[at])
        changed[position] ^= 1
        path.write_bytes(b"".join([*lines[:at], bytes(changed), *lines[at + 1 :]]))
        with pytest.raises(IntegrityError):
            verify(path)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_line_that_is_missing_doubled_or_moved_is_found(path, at):
    lines = _written(path)
    for wrong in (
        lines[:at] + lines[at + 1 :],
        lines[:at] + lines[at - 1 : at] + lines[at:],
        [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
    ):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(IntegrityError):
            verify(path)


def test_an_end_that_was_cut_off_is_found_by_an_anchor_kept_elsewhere(path):
    lines = _written(path)
    anchor = verify(path).chain
    assert verify(path, anchor=anchor).lines == 7
    path.write_bytes(b"".join(lines[:-1]))
    assert verify(path).lines == 6
    with pytest.raises(IntegrityError, match="no line has the chain"):
        verify(path, anchor=anchor)


def test_a_log_that_is_not_there_is_told(path):
    for look in (verify, lambda missing: list(audit_file.lines(missing))):
        with pytest.raises(NotFoundError, match="there is no audit log"):
            look(path)


def test_a_damaged_last_line_is_not_continued_in_silence(path):
    lines = _written(path)
    path.write_bytes(b"".join([*lines[:-1], b"garbage\n"]))
    log = AuditLog(path)
    log.add(note())
    log.close()
    with pytest.raises(IntegrityError):
        verify(path)


# When it cannot be written.


def test_a_full_device_costs_lines_which_are_counted(caplog):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    log = AuditLog(full, flush_s=0.01)
    for _each in range(10):
        log.add(note())
    log.close()
    assert (log.written, log.dropped) == (0, 10)
    assert caplog.text.count("lines of the audit log are dropped") == 1


def test_lines_that_were_lost_are_told_by_the_next_one(path, wait_until):
    path.mkdir()
    log = AuditLog(path, flush_s=0.01)
    log.add(note())
    log.add(note())
    wait_until(lambda: log.dropped == 2)
    path.rmdir()
    log.add(note(201))
    log.close()
    assert [line.get("dropped") or line.get("status") for line in entries(path)] == [None, 2, 201]
    assert verify(path).dropped == 2


def test_a_write_that_fails_half_way_leaves_no_part_of_a_line(path, monkeypatch):
    file = AuditFile(path)
    file.append([note(200).line()])
    real = os.write

    def half(fd, data):
        if len(data) > 100:
            return real(fd, bytes(data[:100]))
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="no space"):
            file.append([note(201).line()])
    file.append([note(202).line()])
    file.close()
    assert [line.get("status") for line in entries(path)] == [None, 200, 202]
    assert verify(path).lines == 3


def test_a_pipe_that_nobody_reads_holds_up_nobody(path):
    """The writer hangs in the kernel; adding goes on, memory is bounded, and closing gives up."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, 1031, 4096)  # F_SETPIPE_SZ: full after a few lines
    log = AuditLog(path, flush_s=0.01, queue=100)
    began = time.perf_counter()
    for _each in range(5_000):
        log.add(note())
    assert time.perf_counter() - began < 5
    log.close(timeout=0.2)
    assert log.dropped > 4_000
    assert len(log._queue) <= 100
    thread = next(each for each in threading.enumerate() if each.name == "audit")
    while thread.is_alive():
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 65536)
        thread.join(0.001)
    os.close(reader)


def test_two_writers_of_one_file_do_not_break_the_chain(path, wait_until):
    first, second = AuditLog(path, flush_s=0.01), AuditLog(path, flush_s=0.01)
    first.add(note(200))
    wait_until(lambda: first.written == 1)
    second.add(note(201))
    wait_until(lambda: second.dropped == 1)
    first.close()
    second.add(note(202))
    second.close()
    assert verify(path).lines == 4


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("plain é 漢", "plain é 漢"), ("a\nb\r\x00\x1b[0m", "a\ufffdb\ufffd\ufffd\ufffd[0m"), ("\u202eevil", "\ufffdevil"), ("\x85\x9b", "\ufffd\ufffd"), ("x" * 900, "x" * 200), ("\ud800", "\ufffd")],
    ids=ascii,
)  # fmt: skip
def test_texts_are_made_harmless(text, cleaned):
    assert clean(text) == cleaned
