"""Helpers for what people see: events, and small programs whose output is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from modeldeploy.values.events import Event, Level, Name

PREAMBLE = """
from modeldeploy.observe import log, progress, sinks
from modeldeploy.values.events import Event, Level, Name
def event(name, level=Level.INFO, **fields): return Event(name, 1_700_000_000.0, "op-1", level, fields)
"""


@pytest.fixture
def event() -> Callable[..., Event]:
    """Give ``event(name, level=INFO, at=..., **fields)``."""

    def make(name: Name, level: Level = Level.INFO, *, at: float = 1_700_000_000.0, **fields: Any) -> Event:
        return Event(name, at, "op-1", level, fields)

    return make


@pytest.fixture
def program() -> Callable[..., tuple[str, str]]:
    """Give ``program(code)``: run it in a process of its own, with ``event`` at hand, and give its stdout and stderr."""

    def run(code: str, **environ: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PREAMBLE + code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **environ},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run
