"""What a forked process has of the one that it came from, and how it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

HEAD = """
import gc, os, sys, time
from modeldeploy.backends.local.forking import fork
def code(run, keep=()):
    return os.waitstatus_to_exitcode(os.waitpid(fork(run, keep=keep), 0)[1])
"""


def said(program: str) -> list[str]:
    """Give the lines that a program of its own writes, whose processes have no threads."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_it_has_no_other_descriptors_than_it_is_given():
    program = """
(kept, other), (also, _) = os.pipe(), os.pipe()
def show():
    for each in (kept, also, other):
        try: os.fstat(each); print("open")
        except OSError: print("closed")
    return 0
code(show, keep=[kept, also])
"""
    assert said(program) == ["open", "open", "closed"]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("lambda: 3", "3"),
        ("lambda: sys.exit(4)", "4"),
        ("lambda: sys.exit()", "0"),
        ("lambda: sys.exit('why')", "1"),
        ("lambda: 1 / 0", "1"),
    ],
)
def test_it_ends_with_what_it_gives_and_never_returns_into_the_stack_below(run, expected):
    assert said(f"print(code({run}))") == [expected]


def test_it_collects_garbage_where_its_parent_does_not_while_it_loads():
    """A front that was forked by a supervisor which is still loading would else keep every cycle for ever."""
    assert said("gc.disable(); print(code(lambda: int(gc.isenabled())))") == ["1"]


def test_it_ends_with_its_parent():
    """It has our end of the pipe too, which therefore ends only when it does."""
    program = "fork(lambda: time.sleep(600) or 0, keep=[]); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", HEAD + program]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == -9


def test_what_it_came_with_is_not_looked_through_for_garbage():
    """Looking copies every page that it shares with the process that it came from."""
    program = """
gc.collect(); gc.disable()
before = [[] for _each in range(10_000)]
def look():
    return int(gc.get_freeze_count() > len(before) and gc.get_count()[0] < len(before))
print(code(look))
"""
    assert said(program) == ["1"]
