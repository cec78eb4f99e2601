"""What a session tells, and whom."""

from __future__ import annotations

import sys

import pytest

from modeldeploy.observe import log
from modeldeploy.values.events import Event, Level, Name


@pytest.mark.parametrize("loaded", [True, False])
def test_events_are_logged_unless_nobody_can_take_log_lines(session, monkeypatch, loaded):
    """Whoever wants log lines has imported what gives them; a script that has not need not wait for it."""
    seen = []
    monkeypatch.setattr(log, "write", lambda name, *_arguments, **_options: seen.append(name))
    if not loaded:
        monkeypatch.delitem(sys.modules, "logging")
    session.sinks(Event(Name.OPERATION_STARTED, 0.0, "rollout-1", Level.INFO, {}))
    assert seen == [Name.OPERATION_STARTED.value] * loaded
