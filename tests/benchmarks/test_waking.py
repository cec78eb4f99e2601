"""What waking another process costs: measured on one core and between two, with nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# In a process of its own: it forks and moves from core to core.
CODE = """
import os, waking
cores = os.sched_getaffinity(0)
for turn in waking.turns():
    assert 0 < turn.cpu_s < 1 and 0 < turn.seconds < 1
    print(turn.where)
assert os.sched_getaffinity(0) == cores
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pins processes to cores")


def test_turns_are_measured_on_one_core_and_between_two_and_the_cores_given_back():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={"PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = ["on one core", "between two cores"][: len(os.sched_getaffinity(0))]
    assert done.stdout.splitlines() == expected
