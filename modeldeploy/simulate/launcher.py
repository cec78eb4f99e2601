"""Starts programs that end when this process does, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import modeldeploy

ROOT = str(Path(modeldeploy.__file__).resolve().parent.parent)
# The tie to the parent is made in the child before the program takes its place, and outlives that.
_TETHER = (
    "import os, sys; sys.path.insert(0, sys.argv[1]); from modeldeploy.serving.lifeline import die_with_parent; "
    "die_with_parent(int(sys.argv[2])); os.execvp(sys.argv[3], sys.argv[3:])"
)


class Launcher:
    """All children are started by one thread: the kernel ties a child to the thread that made it, not to the process."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    def start(self, argv: Sequence[str], env: Mapping[str, str], directory: Path) -> subprocess.Popen[bytes]:
        """Start a program with this environment and no other, in a session of its own, its output in one pipe."""
        command = [sys.executable, "-c", _TETHER, ROOT, str(os.getpid()), *argv]
        return self._thread.submit(_start, command, dict(env), directory).result()

    def close(self) -> None:
        """End the thread, and with it whatever still runs."""
        self._thread.shutdown()


def _start(command: list[str], env: dict[str, str], directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
