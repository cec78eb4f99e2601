"""The story on a real account, when ``SAGEMAKER_LIVE_ROLE`` names an execution role; on the rehearsal always (in the slow tier), so that it is sure to work.

It costs money: see ``story.py``. ``SAGEMAKER_LIVE_REGION``, ``SAGEMAKER_LIVE_BUCKET`` and ``SAGEMAKER_LIVE_IMAGE`` say the rest; credentials
come from AWS's own chain. The story runs in a process of its own, for nothing in this one may reach another machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORY = Path(__file__).with_name("story.py")
ROLE = "SAGEMAKER_LIVE_ROLE"
GIVEN = ("REGION", "BUCKET", "IMAGE")


def tell(*arguments, timeout, **environ):
    done = subprocess.run(
        [sys.executable, str(STORY), *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_story_on_the_rehearsal():
    said = tell("--rehearse", timeout=170, AWS_EC2_METADATA_DISABLED="true")
    assert "left over: nothing" in said
    assert all(word in said for word in ("deployed in", "rolled out in", "rolled back in", "scored in"))


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.skipif(ROLE not in os.environ, reason=f"costs money on a real account; {ROLE} switches it on")
def test_the_story_on_a_real_account():
    given = {name: os.environ.get(f"SAGEMAKER_LIVE_{name}", "") for name in GIVEN}
    options = [part for name, value in given.items() if value for part in (f"--{name.lower()}", value)]
    assert "left over: nothing" in tell("--role", os.environ[ROLE], *options, timeout=3 * 3600)
