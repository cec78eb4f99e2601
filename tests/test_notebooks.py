"""The notebooks run in a real kernel, and what they show was stored by a run and tells nothing about anybody's machine."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"/(?:home|root|Users|tmp|work|var|opt|usr|private)/|[A-Z]:\\\\|site-packages|0x[0-9a-f]{8,}")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]


def test_there_is_a_quickstart():
    assert "quickstart" in [path.stem for path in NOTEBOOKS]


@pytest.mark.timeout(300)
@each_notebook
def test_a_notebook_runs_in_a_real_kernel_and_shows_what_was_stored(path, tmp_path, modeldeploy_home, end_processes):
    stored = nbformat.read(path, as_version=4)
    book = copy.deepcopy(stored)
    where = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=where, allow_errors=False)
    shown = [len(cell.outputs) > 0 for cell in code_cells(stored)]
    try:
        client.execute()
    finally:
        end_processes(modeldeploy_home)  # an endpoint outlives the kernel on purpose
    for cell, had in zip(code_cells(book), shown, strict=True):
        assert [output for output in cell.outputs if output.output_type == "error"] == []
        assert had or not cell.outputs, f"this cell shows something, and nothing is stored for it:\n{cell.source}"


@each_notebook
def test_what_is_stored_is_complete_and_tells_nothing_about_a_machine(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    cells = code_cells(book)
    assert any(cell.outputs for cell in cells)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), (
        "run it from top to bottom and save it"
    )
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            found = MACHINE.search(str(output))
            assert found is None, f"{found[0]!r} is stored with:\n{cell.source}"
