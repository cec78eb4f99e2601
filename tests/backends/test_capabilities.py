"""The table of capabilities in the documents is the one that the backends declare."""

from __future__ import annotations

from pathlib import Path

import attrs

from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.values.capability import Capabilities

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backends" / "local.md"


def _cell(declared: Capabilities, name: str) -> str:
    value = getattr(declared, name)
    if value is False or value is None:
        return "no"
    if type(value) is float:
        return f"{value:g} s" if value else "any"
    return str(value) if type(value) is int else "yes"


def _table() -> str:
    names = [field.name for field in attrs.fields(Capabilities) if field.name != "why_not"]
    rows = [f"| `{name}` | {_cell(LocalBackend.capabilities, name)} | {_cell(EVERYTHING, name)} |" for name in names]
    return "\n".join(["| capability | `local` | `memory` |", "|---|---|---|", *rows])


def test_the_page_has_the_capabilities_that_are_declared():
    table = _table()
    assert table in PAGE.read_text(encoding="utf-8"), f"put this table into {PAGE.name}:\n{table}"
