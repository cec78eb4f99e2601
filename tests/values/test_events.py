"""The event names and what is written about them are one."""

from __future__ import annotations

import re
from pathlib import Path

from modeldeploy.values.events import Level, Name

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = re.compile(r"^\| `(\w+\.\w+)` \| ([\w, ]+) \|", re.MULTILINE)


def test_the_document_lists_every_event_and_no_other():
    rows = ROW.findall((ROOT / "docs" / "events.md").read_text(encoding="utf-8"))
    assert [name for name, _levels in rows] == [name.value for name in Name]
    assert {level for _name, levels in rows for level in levels.split(", ")} <= {level.value for level in Level}
