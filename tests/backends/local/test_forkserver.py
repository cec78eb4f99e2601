"""What a worker that was forked undoes of the process that it came from."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

HEAD = """
import os, sys
from modeldeploy.backends.local.forkserver import _reseed
def numbers(draw):
    for _each in range(2):
        pid = os.fork()
        if pid == 0:
            _reseed()
            print(draw(), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
"""


def said(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", ["random", "numpy.random"])
def test_workers_of_one_fork_server_draw_numbers_of_their_own(module):
    first, second = said(f"import {module} as drawn; drawn.seed(1); numbers(drawn.random)")
    assert first != second


def test_what_nobody_has_imported_is_not_imported_to_be_seeded():
    assert said("numbers(lambda: {'random', 'numpy.random'} & set(sys.modules))") == ["set()", "set()"]
