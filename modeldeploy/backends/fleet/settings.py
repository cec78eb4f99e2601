"""Settings of the backend, from the configuration file or the environment."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from modeldeploy.backends.options import check_range, parse
from modeldeploy.errors import ConfigurationError

OFFLINE_AFTER_S = 900.0
"""Three times as long as an agent lets pass without a report."""
SETTLE_S = 60.0
POLL_S = 0.25
_NUMBERS = {"offline_after": OFFLINE_AFTER_S, "settle": SETTLE_S, "poll_after": POLL_S}
_TEXTS = ("store", "key", "token")
_LONGEST_S = 30 * 86_400.0


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Make arguments of settings; ConfigurationError names one that is not known or wrong."""
    known = [*_TEXTS, *_NUMBERS]
    unknown = sorted(set(given) - set(known))
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        asked = f"did you mean {close[0]!r}? " if close else ""
        message = f"backend 'fleet' knows no setting {unknown[0]!r}"
        raise ConfigurationError(message, hint=f"{asked}known are {known}")
    found: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name)}
    found |= {name: parse(name, given[name], default) for name, default in _NUMBERS.items() if name in given}
    return found


def check_times(offline_after: float, settle: float, poll_after: float) -> None:
    """Refuse times that make no sense."""
    check_range("offline_after", offline_after, 0.1, _LONGEST_S)
    check_range("settle", settle, 0, _LONGEST_S)
    check_range("poll_after", poll_after, 0, 3600)
