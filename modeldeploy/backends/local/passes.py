"""What this user's processes show to an endpoint that asks for a key: a key of theirs, or a ticket of the state directory's owner."""

from __future__ import annotations

import time
from pathlib import Path

import attrs

from modeldeploy.errors import CredentialsError
from modeldeploy.serving import owner


@attrs.frozen
class Address:
    """Where an endpoint is, and whether it asks for a key."""

    url: str
    keyed: bool


class Passes:
    """Gives the value of the ``Authorization`` header for an endpoint."""

    def __init__(self, secret: Path, api_key: str | None) -> None:
        self._path = secret
        self._api_key = api_key
        self._tickets: dict[str, tuple[float, str]] = {}

    def of(self, endpoint: str) -> str:
        """Give what to show; a ticket is made anew when half of its time is over."""
        if self._api_key is not None:
            return f"Bearer {self._api_key}"
        now = time.time()
        until, shown = self._tickets.get(endpoint, (0.0, ""))
        if not now < until <= now + owner.LIFE_S:
            shown = f"Bearer {owner.ticket(self._secret(), endpoint, now)}"
            self._tickets[endpoint] = (now + owner.LIFE_S / 2, shown)
        return shown

    def forget(self, endpoint: str) -> None:
        """Make a new ticket the next time."""
        self._tickets.pop(endpoint, None)

    def _secret(self) -> bytes:
        try:
            return owner.read_secret(self._path)
        except FileNotFoundError as error:
            message = f"the endpoint asks for a key, and {str(self._path)!r} is gone"
            raise CredentialsError(message, hint="run modeldeploy stop, or set MODELDEPLOY_LOCAL_API_KEY") from error
