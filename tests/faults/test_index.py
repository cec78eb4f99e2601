"""Every row of the fault matrix has its test: wherever it lies, it is marked with ``row(number)``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
ROWS = set(range(1, 26))
PAGE = TESTS.parent / "docs" / "reliability.md"


def marked(path: Path) -> Iterator[tuple[int, str]]:
    """Name each test of a file that is marked, with the row."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for each in node.decorator_list:
                if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.row":
                    yield each.args[0].value, node.name


@pytest.fixture(scope="module")
def rows() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for row, _name in marked(path):
            found.setdefault(row, set()).add(f"tests/{path.relative_to(TESTS).as_posix()}")
    return found


def test_every_row_has_a_test_and_no_test_is_of_a_row_that_is_none(rows):
    assert set(rows) == ROWS


def test_the_page_has_every_row_and_names_the_files_in_which_it_is_tested(rows):
    lines = re.findall(r"^\| (\d+) \|.*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number in lines] == sorted(ROWS)
    for line in re.findall(r"^\| \d+ \|.*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        number = int(line.split("|")[1])
        assert set(re.findall(r"\(\.\./(tests/[^)]+)\)", line)) == rows[number], f"row {number}"


def test_marks_are_found_under_parametrized_and_coroutine_tests(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text(
        "@pytest.mark.slow\n@pytest.mark.row(3)\n@pytest.mark.parametrize('a', [1])\ndef test_a(a): ...\n"
        "@pytest.mark.row(4)\nasync def test_b(): ...\n@pytest.mark.row(5)\ndef helper(): ...\n"
    )
    assert list(marked(path)) == [(3, "test_a"), (4, "test_b")]
