"""The scripts in ``benchmarks/`` import one another by their plain names, as they do when they are run."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = (
    "batch",
    "changes",
    "load",
    "models",
    "peers",
    "report",
    "results",
    "run",
    "serving",
    "tree",
    "verdicts",
    "waking",
)


@pytest.fixture
def script(monkeypatch):
    """Give ``script(name)``: one of the modules; none stays imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)
