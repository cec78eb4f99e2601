"""The rules that keep the layers apart are themselves tested: each reports a violation that is planted in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import modeldeploy

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        Path(modeldeploy.__file__).parent, tmp_path / "modeldeploy", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    command = [str(TOOLS / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=100, check=False)


def ruff(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / "ruff"), "check", "--no-cache", *arguments, "modeldeploy"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60, check=False)


def plant(tree: Path, module: str, line: str) -> None:
    path = tree / "modeldeploy" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")


def test_the_package_keeps_its_contracts(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("values/names.py", "import modeldeploy.engine.effects", "layers"),
        ("values/names.py", "def _hidden():\n    import modeldeploy.registry", "layers"),
        ("engine/effects.py", "import modeldeploy.backends.local", "layers"),
        ("engine/effects.py", "import modeldeploy.observe.log", "layers"),
        ("backends/memory.py", "import modeldeploy.backends.local", "backends know nothing of each other"),
        ("packaging/__init__.py", "import modeldeploy.config", "a container needs only"),
        ("serving/__init__.py", "def _hidden():\n    import structlog", "a container needs only"),
        ("edge/layout.py", "import modeldeploy.serving.http", "layers"),
        ("edge_agent/config.py", "def _hidden():\n    import structlog", "a container needs only"),
        ("stats/means.py", "import numpy", "statistics are pure mathematics"),
    ],
)
def test_an_import_that_breaks_a_contract_is_reported(copy, module, line, contract):
    plant(copy, module, line)
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout
    broken = [each for each in done.stdout.splitlines() if " BROKEN" in each]
    assert any(each.startswith(contract) for each in broken), done.stdout


@pytest.mark.parametrize(
    "package",
    ["boto3", "sklearn", "structlog", "tenacity", "pandas", "google.cloud.storage", "azure.identity", "torch"],
)
def test_a_heavy_import_at_module_level_is_reported(copy, package):
    plant(copy, "values/names.py", f"import {package}")
    done = ruff(copy, "--select", "TID253")
    assert done.returncode == 1
    assert package.partition(".")[0] in done.stdout


def test_a_heavy_import_inside_a_function_is_allowed(copy):
    plant(copy, "values/names.py", "def _hidden():\n    import pandas")
    assert ruff(copy, "--select", "TID253").returncode == 0


@pytest.mark.parametrize("line", ["print('here')", "from .names import check_name", "import os.path as p, sys"])
def test_the_wide_rule_set_is_on(copy, line):
    plant(copy, "values/names.py", line)
    assert ruff(copy).returncode == 1
