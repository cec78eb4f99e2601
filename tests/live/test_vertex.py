"""The story in a real project, when ``VERTEX_LIVE_PROJECT`` names one; on the rehearsal always (in the slow tier), so that it is sure to work.

It costs money: see ``vertex_story.py``. ``VERTEX_LIVE_LOCATION`` and ``VERTEX_LIVE_BUCKET`` say where; credentials are found as Google's own tools find
them. The story runs in a process of its own, for nothing in this one may reach another machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORY = Path(__file__).with_name("vertex_story.py")
PROJECT = "VERTEX_LIVE_PROJECT"
GIVEN = ("PROJECT", "LOCATION", "BUCKET", "IMAGE", "BASE_IMAGE", "SERVICE_ACCOUNT")


def tell(*arguments, timeout):
    done = subprocess.run(
        [sys.executable, str(STORY), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_story_on_the_rehearsal():
    said = tell("--rehearse", timeout=290)
    assert "left over: nothing" in said
    assert all(word in said for word in ("deployed in", "rolled out in", "rolled back in", "scored in"))


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.skipif(PROJECT not in os.environ, reason=f"costs money in a real project; {PROJECT} switches it on")
def test_the_story_in_a_real_project():
    given = {name: os.environ.get(f"VERTEX_LIVE_{name}", "") for name in GIVEN}
    options = [
        part for name, value in given.items() if value for part in (f"--{name.lower().replace('_', '-')}", value)
    ]
    assert "left over: nothing" in tell(*options, timeout=3 * 3600)
