"""The documents are run: each Python block, each link, each doctest."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement

import modeldeploy

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^ *```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\[]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
# Run as __main__, so that what a document defines can be pickled as from a script; lines keep their numbers in the document.
RUNNER = """
import json, linecache, sys
name, blocks = json.load(open(sys.argv[1], encoding="utf-8"))
sys.argv = [name]
for _number, (_line, _code) in enumerate(blocks):
    _file = f"{name}[{_number}]"
    _text = "\\n" * (_line - 1) + _code
    linecache.cache[_file] = (len(_text), None, _text.splitlines(True), _file)
    exec(compile(_text, _file, "exec"), globals())
"""


def ident(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[tuple[int, str]]:
    """Find the Python blocks of a document with the numbers of their first lines."""
    found = []
    for match in FENCE.finditer(text):
        if match["language"] == "python":
            indent = match["indent"]
            code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
            found.append((text.count("\n", 0, match.start("code")) + 1, code))
    return found


WITH_CODE = [path for path in DOCUMENTS if blocks(path.read_text(encoding="utf-8"))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", WITH_CODE, ids=ident)
def test_the_python_of_a_document_runs_from_top_to_bottom(document, tmp_path, modeldeploy_home, end_processes):
    given = tmp_path / "blocks.json"
    given.write_text(json.dumps([ident(document), blocks(document.read_text(encoding="utf-8"))]), encoding="utf-8")
    runner = tmp_path / "runner.py"
    runner.write_text(RUNNER, encoding="utf-8")
    there = tmp_path / "cwd"
    there.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, str(runner), str(given)],
            cwd=there,
            env={**os.environ, "MODELDEPLOY_HOME": str(modeldeploy_home)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    finally:
        end_processes(modeldeploy_home)  # an endpoint outlives the program on purpose
    assert done.returncode == 0, done.stdout + done.stderr


def test_blocks_are_found_with_their_line_numbers():
    text = "# A\n\n```python\na = 1\n```\n- x\n  ```python\n  if a:\n      b = 2\n  ```\n```text\nno\n```\n```sh\nls\n```\n"
    assert blocks(text) == [(4, "a = 1\n"), (8, "if a:\n    b = 2\n")]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Make the anchors that code hosts give to headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def targets(document: Path) -> list[str]:
    found = [first or second for first, second in LINK.findall(without_code(document.read_text(encoding="utf-8")))]
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def resolve(document: Path, path: str) -> Path:
    there = (document.parent / unquote(path)).resolve() if path else document
    source = ROOT / "modeldeploy"
    # Beside the wheel there is no source folder: the installed package stands for it.
    return Path(modeldeploy.__file__).parent / there.relative_to(source) if there.is_relative_to(source) else there


@pytest.mark.parametrize("document", DOCUMENTS, ids=ident)
def test_every_link_within_the_repository_leads_somewhere(document):
    for target in targets(document):
        path, _, anchor = target.partition("#")
        there = resolve(document, path)
        assert there.exists(), f"{target!r} leads nowhere"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{target!r}: there is no such heading"


def test_anchors_are_made_as_code_hosts_make_them():
    assert anchors("# A `b` & c!\n## Twice\n## Twice\n```text\n# no\n```\n") == {"a-b--c", "twice", "twice-1"}


def test_every_document_is_reached_from_the_index():
    reached, todo = set(), [ROOT / "docs" / "index.md"]
    while todo:
        document = todo.pop()
        if document not in reached and document.suffix == ".md" and document.is_file():
            reached.add(document)
            todo += [resolve(document, target.partition("#")[0]) for target in targets(document)]
    assert sorted(ident(path) for path in set(ROOT.glob("docs/**/*.md")) - reached) == []


MODULES = [
    each.name for each in pkgutil.walk_packages(modeldeploy.__path__, "modeldeploy.") if "__main__" not in each.name
]


@pytest.mark.parametrize("name", ["modeldeploy", *MODULES])
def test_the_examples_in_docstrings_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=options, raise_on_error=False)
    assert result.failed == 0


def test_some_docstrings_hold_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))) >= 3


# ---------------------------------------------------------------- docs/dependencies.md


def declared() -> dict[str, set[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"Core": project["dependencies"], **project["optional-dependencies"]}
    names = {group: {Requirement(each).name for each in requirements} for group, requirements in groups.items()}
    return {group: each - {"modeldeploy"} for group, each in names.items()}


def explained() -> dict[str, dict[str, str]]:
    """Read ``## `extra` `` headings and ``- `package`: reason.`` lines."""
    found: dict[str, dict[str, str]] = {}
    group: dict[str, str] = {}
    for line in (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"#{2,3} `?([\w-]+)`?", line):
            group = found.setdefault(heading[1], {})
        elif item := re.fullmatch(r"- `([\w.-]+)`: (.+\.)", line):
            assert item[1] not in group, f"{item[1]} is listed twice"
            group[item[1]] = item[2]
    return {name: reasons for name, reasons in found.items() if reasons}


def test_dependencies_are_explained_exactly():
    assert {group: set(reasons) for group, reasons in explained().items()} == declared()


def test_every_dependency_has_a_reason_worth_reading():
    for group, reasons in explained().items():
        for name, reason in reasons.items():
            assert len(reason.split()) >= 4, f"{group}: {name}: {reason}"
