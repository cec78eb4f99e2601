"""Directories of simulators are swept up after those that were killed, and after nobody else."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

from modeldeploy.simulate.places import place

PROGRAM = """
import contextlib, pathlib, sys, time
from modeldeploy.simulate.places import place
with contextlib.ExitStack() as stack:
    print(place(pathlib.Path(sys.argv[1]), "md-test-", stack), flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_up_and_what_is_in_use_is_not(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with other, contextlib.ExitStack() as stack:
        theirs = tmp_path / other.stdout.readline().strip()
        mine = place(tmp_path, "md-test-", stack)
        assert theirs.is_dir()
        other.send_signal(signal.SIGKILL)
        other.wait()
        with contextlib.ExitStack() as inner:
            place(tmp_path, "md-test-", inner)
        assert mine.is_dir()
        assert not theirs.exists()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_just_being_made_is_left_alone(tmp_path):
    (tmp_path / "md-test-new").mkdir()
    with contextlib.ExitStack() as stack:
        place(tmp_path, "md-test-", stack)
    assert (tmp_path / "md-test-new").is_dir()
