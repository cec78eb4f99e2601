"""Who may ask a server what, as it was asked for; ``Entrance`` makes it so."""

from __future__ import annotations

import enum
from pathlib import Path

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving.origins import is_loopback
from modeldeploy.serving.ratelimit import Rate

KEYS, NONE = "keys", "none"
_AUTH = (KEYS, NONE)
HEALTH = frozenset({"/", "/ping", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
PREDICTIONS = frozenset({"/invocations", "/score"})
_READING = frozenset({"GET", "HEAD"})
_MODELS, _OF_A_MODEL = "/v2/models/", ("/infer", "/ready")


class Scope(enum.Enum):
    """What a key may ask a server for; one does not include the other."""

    PREDICT = "predict"
    """Predictions, and whether a model is ready for them."""
    ADMIN = "admin"
    """Metrics, metadata, and every route that is neither a prediction nor health."""


@attrs.frozen
class Access:
    """What was asked for; paths are empty where there is no such file."""

    host: str = "127.0.0.1"
    """The address that the server is bound to."""
    auth: str = ""
    """``keys`` or ``none``; empty takes ``none`` where only this machine can reach the server, ``keys`` elsewhere."""
    keys: str = ""
    """The file of the API keys."""
    owner: str = ""
    """The secret of the state directory's owner."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts beside this machine's that requests to a loopback address may name; ``*`` for any."""
    rate: float = 0.0
    """Requests per second of a key, or of an address where there are no keys; 0 for no limit."""
    burst: int = 0
    """How many of them may come at once; 0 for one second's."""
    audit: str = ""
    """The file of the audit log."""

    def __attrs_post_init__(self) -> None:
        if self.auth not in {"", *_AUTH}:
            message = f"auth is {self.auth!r}"
            raise ConfigurationError(message, hint=f"use one of {list(_AUTH)}")
        if self.burst and not self.rate:
            message = f"burst is {self.burst} without a rate"
            raise ConfigurationError(message, hint="give both; rate is in requests per second")
        Rate.of(self.rate, self.burst)

    @property
    def keyed(self) -> bool:
        """Whether a key is asked for."""
        return self.auth == KEYS or (not self.auth and not is_loopback(self.host))

    @property
    def limit(self) -> Rate | None:
        """The limit of whoever has none of their own."""
        return Rate.of(self.rate, self.burst)


def check_exposed(access: Access, *, remedy: str, waiver: str) -> None:
    """Raise ConfigurationError when keys are asked for and there is none; nothing is bound or written before it."""
    if access.keyed and not _has_key(access.keys):
        reached = f"address {access.host!r} can be reached from other machines"
        message = f"{'keys are asked for' if access.auth else reached}, and there is no API key"
        hint = f"make one with: {remedy}; or, where a platform in front asks for credentials itself, say {waiver}"
        raise ConfigurationError(message, hint=hint)


def _has_key(path: str) -> bool:
    from modeldeploy.serving.keyring import Keyring  # which an endpoint without keys does without

    return bool(path and Keyring(Path(path)).live())


@attrs.frozen
class Doors:
    """Which routes are which: health is open, the others need a key where keys are asked for."""

    health: frozenset[str] = HEALTH
    predictions: frozenset[str] = PREDICTIONS

    def scope(self, method: str, path: str) -> Scope | None:
        """Give what a request needs; None for nothing. A route that nobody thought of needs the most."""
        if path in self.health and method in _READING:
            return None
        if path in self.predictions or (path.startswith(_MODELS) and path.endswith(_OF_A_MODEL)):
            return Scope.PREDICT
        return Scope.ADMIN
