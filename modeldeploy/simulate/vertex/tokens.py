"""Bearer tokens: whether one comes along, and whether it looks like one; which it is, is kept nowhere."""

from __future__ import annotations

import threading

import attrs

_SCHEME = "Bearer "


@attrs.define(eq=False)
class Tokens:
    """Counts requests with a token. Without ``needed`` a request may come without one, as over a channel in plain text it must."""

    needed: bool = False
    seen: int = 0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def accepts(self, header: str | None) -> bool:
        """Say whether a request may pass with this header of authorization."""
        if header is None:
            return not self.needed
        if not header.startswith(_SCHEME) or not header.removeprefix(_SCHEME).strip():
            return False
        with self._lock:
            self.seen += 1
        return True
