"""What a call to an endpoint authenticates with: its key or its token, remembered until it is refused or grows old."""

from __future__ import annotations

import threading
import time

import attrs

from modeldeploy.backends.azureml.client import Client
from modeldeploy.backends.azureml.errors import translated

AAD_SCOPE = "https://ml.azure.com/.default"
"""For endpoints that take tokens of Entra; the token is the caller's own, not the endpoint's."""
_EARLY_S = 300.0


@attrs.frozen
class Door:
    """Where an endpoint is called, and with what."""

    uri: str
    auth_mode: str
    secret: str = attrs.field(repr=False)
    until: float = float("inf")
    """When the secret is to be asked for anew, in seconds since the epoch."""

    @property
    def fresh(self) -> bool:
        """Whether the secret still holds."""
        return time.time() < self.until


class Doors:
    """The doors of all endpoints that were called; safe to use from several threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Door] = {}
        self._lock = threading.Lock()

    def known(self, endpoint: str) -> Door | None:
        """Give what is remembered, if it is still good."""
        door = self._known.get(endpoint)
        return door if door is not None and door.fresh else None

    def open(self, endpoint: str, uri: str, auth_mode: str) -> Door:
        """Ask for the secret of an endpoint and remember it."""
        secret, until = self._secret(endpoint, auth_mode)
        door = Door(uri, auth_mode, secret, until)
        with self._lock:
            self._known[endpoint] = door
        return door

    def forget(self, endpoint: str) -> None:
        """Forget an endpoint: it refused what is remembered, or is gone."""
        with self._lock:
            self._known.pop(endpoint, None)

    def _secret(self, endpoint: str, auth_mode: str) -> tuple[str, float]:
        if auth_mode == "aad_token":
            with translated(endpoint=endpoint):
                token = self._client.credential.get_token(AAD_SCOPE)
            return token.token, float(token.expires_on) - _EARLY_S
        found = self._client.call(lambda sdk: sdk.online_endpoints.get_keys(endpoint), endpoint=endpoint)
        if auth_mode == "key":
            return str(found.primary_key), float("inf")
        # The service says when to come again: after half of the token's day.
        return str(found.access_token), float(found.refresh_after_time_utc or found.expiry_time_utc)
