from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory):
    """Give ``mypy(file)``: what the type checker says under --strict, as lines."""
    cache = tmp_path_factory.mktemp("mypy")

    def check(file: Path) -> list[str]:
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
        options = ["--cache-dir", str(cache), "--no-error-summary", "--hide-error-context", str(file)]
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode in {0, 1}, done.stderr
        return done.stdout.splitlines()

    return check


@pytest.mark.parametrize("file", sorted(HERE.glob("[!t]*.py")), ids=lambda path: path.stem)
def test_the_type_checker_agrees_with_the_examples(mypy, file):
    assert mypy(file) == []


def test_the_type_checker_is_really_asked(mypy, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from modeldeploy import Endpoint\nEndpoint.get(3)\n", encoding="utf-8")
    (line,) = mypy(wrong)
    assert line.endswith("[arg-type]")
