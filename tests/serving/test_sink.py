"""What a worker says when nobody reads: lines are lost and counted, nothing waits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from modeldeploy.serving import sink

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes that do not wait are of POSIX")


@pytest.fixture
def pipe():
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(theirs, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def drain(fd: int) -> bytes:
    data = b""
    try:
        while chunk := os.read(fd, 1 << 16):
            data += chunk
    except BlockingIOError:
        pass
    return data


def test_a_full_pipe_costs_lines_and_what_was_lost_is_told_when_there_is_room(pipe):
    ours, theirs = pipe
    stream = sink.LossyPipe(theirs)
    line = b"x" * 99 + b"\n"
    for _each in range(2_000):
        assert stream.write(line) == len(line)
    received = drain(ours)
    stream.write(b"and on\n")
    told, after = drain(ours).splitlines()[-2:]
    assert after == b"and on"
    whole = received.count(b"\n")
    assert sink.lost(told.decode()) == 2_000 - whole
    assert stream.dropped == 0


def test_a_line_that_was_torn_is_ended_before_the_next_begins(pipe):
    ours, theirs = pipe
    stream = sink.LossyPipe(theirs)
    stream.write(b"y" * 300_000 + b"\n")
    drain(ours)
    stream.write(b"next\n")
    assert drain(ours) == b"\n[modeldeploy] lines dropped here: 1\nnext\n"


@pytest.mark.parametrize("line", ["", "hello", "[modeldeploy] lines dropped here: many"])
def test_other_lines_tell_of_no_loss(line):
    assert sink.lost(line) == 0


def test_a_process_prints_into_a_full_pipe_without_waiting():
    code = (
        "import sys; from modeldeploy.serving import sink; sink.install()\n"
        "for at in range(20_000): print('o' * 50); print('e' * 50, file=sys.stderr)\n"
        "open(sys.argv[1], 'w').close()"
    )
    ours, theirs = os.pipe()
    here, there = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"/dev/fd/{there}"], stdout=theirs, stderr=theirs, pass_fds=[there]
    )
    for fd in (theirs, there):
        os.close(fd)
    assert process.wait(timeout=60) == 0, "nobody has read anything yet"
    assert b"o" * 50 in os.read(ours, 1 << 16)
    os.close(ours)
    os.close(here)


def test_a_file_is_written_as_ever(tmp_path):
    code = "from modeldeploy.serving import sink; sink.install(); print('kept ' * 40_000)"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, stderr=out, check=True)
    assert (tmp_path / "out").stat().st_size == 200_001
