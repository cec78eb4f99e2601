"""One call of a method, as those who answer it see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

_LONG_S = 3_600.0


@attrs.define(eq=False)
class Call:
    """What came along with a request, and what goes along with its answer."""

    metadata: Mapping[str, str]
    remaining: float = _LONG_S
    """How many seconds of this machine the caller still waits."""
    told: dict[str, str] = attrs.field(factory=dict)

    def tell(self, headers: Mapping[str, str]) -> None:
        """Send headers along with the answer."""
        self.told.update(headers)


def of(context: Any) -> Call:
    """Read what came along."""
    left = context.time_remaining()
    metadata = {str(key): str(value) for key, value in context.invocation_metadata() if isinstance(value, str)}
    # A caller who sets no limit is told so by a very large number.
    return Call(metadata, _LONG_S if left is None else max(0.001, min(left, _LONG_S)))
