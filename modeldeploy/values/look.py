"""What a gate is shown when it looks."""

from __future__ import annotations

import attrs

from modeldeploy.values.metrics import Window


@attrs.frozen
class Look:
    """One look at a rollout: the new revision beside stable, in the same time and since this step began. Seconds, percent."""

    revision: str
    stable: str | None
    percent: int
    elapsed: float
    new: Window
    old: Window | None
    """What stable answered; None when there is no stable."""
