"""Requests with a key: the same revision answers the same key, by the backend's router or by naming the revision here."""

from __future__ import annotations

import time

import attrs

from modeldeploy.errors import ConfigurationError, UnsupportedError
from modeldeploy.handles.session import Session
from modeldeploy.values.assignment import KEY_HEADER, assign, key_text, to_header

_FRESH_S = 2.0
"""How old the table of traffic may be by which keys are assigned here."""


@attrs.frozen
class Route:
    """How a request reaches the revision of its key."""

    headers: dict[str, str]
    revision: str | None = None


class Keys:
    """Assigns the keys of one endpoint."""

    def __init__(self, session: Session, endpoint: str) -> None:
        self._session = session
        self._endpoint = endpoint
        self._table: tuple[float, dict[str, int]] = (float("-inf"), {})

    def route(self, key: str | int) -> Route:
        """Say how to send a request with this key; UnsupportedError where it cannot be kept with its revision."""
        text, backend = _text(key), self._session.backend
        if backend.capabilities.sticky:
            return Route({KEY_HEADER: to_header(text)})
        if not backend.capabilities.pinned_invoke:
            known = backend.capabilities.why_not
            why = (
                known.get("sticky")
                or known.get("pinned_invoke")
                or "it keeps no keys, and a call cannot name its revision"
            )
            message = f"backend {backend.name!r} cannot keep key {text!r} with one revision: {why}"
            raise UnsupportedError(message, capability="sticky", hint="predict without key=")
        return Route({}, assign(self._live(), text))

    def forget(self) -> None:
        """Read the table again before the next assignment."""
        self._table = (float("-inf"), {})

    def _live(self) -> dict[str, int]:
        """Give the table of traffic, at most two seconds old."""
        read, live = self._table
        now = time.monotonic()
        if now - read > _FRESH_S:
            state = self._session.serving.observe(self._endpoint)
            live = state.traffic.live if state else {}
            self._table = (now, live)
        return live


def _text(key: object) -> str:
    """Check a key that is to travel as a header."""
    text = key_text(key)
    if text is None or not text.isprintable() or text != text.strip():
        message = f"key is {key!r}"
        raise ConfigurationError(
            message, hint="use a number or a printable text without blanks around it, such as a user id"
        )
    return text
