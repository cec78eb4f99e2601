"""Processes that are copies of another: their pipes, their ends. Each test forks from a process of its own, which has one thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modeldeploy.scoring import forking

pytestmark = pytest.mark.skipif(not forking.POSSIBLE, reason="Linux only")


def _said(body: str) -> str:
    """Run some lines that say something, after ``child`` was forked to do ``act``."""
    script = f"import os, signal, sys\nfrom modeldeploy.scoring.forking import fork\n{body}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout


def test_it_reads_what_it_is_told_and_is_heard_until_its_end():
    body = """
def act():
    for line in sys.stdin:
        os.write(1, b"heard " + line.encode())
    return 7
child = fork(act)
child.stdin.write(b"one\\ntwo\\n")
child.stdin.close()
print(child.stdout.read(), child.wait(), child.wait(), child.poll())
"""
    assert _said(body) == "b'heard one\\nheard two\\n' 7 7 7\n"


def test_it_runs_until_it_is_killed_and_may_be_killed_again():
    body = """
child = fork(lambda: sys.stdin.read() and 0)
print(child.poll())
child.kill()
print(child.wait() == -signal.SIGKILL)
child.kill()
"""
    assert _said(body) == "None\nTrue\n"


def test_its_stdin_ends_for_it_holds_no_other_end_itself():
    body = """
child = fork(lambda: sys.stdin.read() and 0 or 5)
child.stdin.close()
print(child.wait())
"""
    assert _said(body) == "5\n"


def test_what_goes_wrong_is_told_and_nothing_of_its_origin_is_run():
    body = """
sys.stderr = sys.stdout
try:
    child = fork(lambda: 1 / 0)
finally:
    print("once")
print("ZeroDivisionError" in child.stdout.read().decode(), child.wait())
"""
    assert _said(body).splitlines() == ["once", "True 1"]
