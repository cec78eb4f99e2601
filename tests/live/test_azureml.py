"""The story on a real workspace, when ``AZUREML_LIVE_WORKSPACE`` names one; on the rehearsal always (in the slow tier), so that it is sure to work.

It costs money: see ``azureml_story.py``. ``AZUREML_LIVE_SUBSCRIPTION`` and ``AZUREML_LIVE_GROUP`` say where it is; credentials come from
azure-identity's own chain. The story runs in a process of its own, for nothing in this one may reach another machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORY = Path(__file__).with_name("azureml_story.py")
WORKSPACE = "AZUREML_LIVE_WORKSPACE"
GIVEN = ("SUBSCRIPTION", "GROUP", "WORKSPACE", "IMAGE", "COMPUTE")


def tell(*arguments, timeout):
    done = subprocess.run(
        [sys.executable, str(STORY), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_story_on_the_rehearsal():
    said = tell("--rehearse", timeout=170)
    assert "left over: nothing" in said
    assert all(word in said for word in ("deployed in", "rolled out in", "rolled back in", "scored in"))


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.skipif(WORKSPACE not in os.environ, reason=f"costs money on a real workspace; {WORKSPACE} switches it on")
def test_the_story_on_a_real_workspace():
    given = {name: os.environ.get(f"AZUREML_LIVE_{name}", "") for name in GIVEN}
    options = [part for name, value in given.items() if value for part in (f"--{name.lower()}", value)]
    assert "left over: nothing" in tell(*options, timeout=3 * 3600)
