"""Gates judge a request by its head, before a byte of its body is read: whether it shows a key that may do this."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy.errors import ModelDeployError
from modeldeploy.serving import owner, targets
from modeldeploy.serving.access import Doors, Scope
from modeldeploy.serving.messages import Response, failure
from modeldeploy.serving.ratelimit import network

if TYPE_CHECKING:
    from modeldeploy.serving.keyring import Key, LiveKeys

Gate = Callable[[str, bytes, dict[str, str], str], Response | None]
"""Judges method, target, headers and the caller's address; it may change the headers that the handler sees."""

CALLER_HEADER = "modeldeploy-caller"
"""Set for the handler: the id of the key, ``owner``, or the address where no key is asked for; empty on health routes."""
OWNER = "owner"
_KNOWN = 1_000
_log = logging.getLogger(__name__)


def in_turn(gates: Sequence[Gate]) -> Gate | None:
    """Make one gate of several; None of none, for then nothing need be called."""
    if len(gates) <= 1:
        return gates[0] if gates else None

    def judge(method: str, url: bytes, headers: dict[str, str], peer: str) -> Response | None:
        for gate in gates:
            refusal = gate(method, url, headers, peer)
            if refusal is not None:
                return refusal
        return None

    return judge


def by_address(_method: str, _url: bytes, headers: dict[str, str], peer: str) -> None:
    """Let everybody in, known by their address."""
    headers[CALLER_HEADER] = network(peer)


class KeyGate:
    """Lets in who shows a live key of the right scope, or the owner's ticket for this endpoint."""

    def __init__(self, keys: LiveKeys, doors: Doors, *, endpoint: str = "", secret: bytes | None = None) -> None:
        self._keys = keys
        self._doors = doors
        self._endpoint = endpoint
        self._secret = secret
        # What was shown and found good, so that it is not hashed with each request; forgotten when the keys change.
        self._known: dict[str, Key] = {}
        self._generation = 0

    def __call__(self, method: str, url: bytes, headers: dict[str, str], _peer: str) -> Response | None:
        """Judge a request's head; the secret goes no further than here."""
        headers[CALLER_HEADER] = ""
        shown = headers.pop("authorization", "")
        target = targets.read(url)
        if target is None:
            return failure(400, "the request's target is not a path")
        scope = self._doors.scope(method, target[0])
        if scope is None:
            return None
        key = self._recognise(shown)
        if key is None:
            return _unknown(shown)
        headers[CALLER_HEADER] = key.id
        return None if scope in key.scopes else _forbidden(key, scope)

    def _recognise(self, shown: str) -> Key | None:
        generation = self._keys.generation()
        if generation != self._generation or len(self._known) > _KNOWN:
            self._known, self._generation = {}, generation
        now = time.time()
        key = self._known.get(shown) or self._find(shown, now)
        if key is None or not key.is_live(now):
            return None
        self._known[shown] = key
        return key

    def _find(self, shown: str, now: float) -> Key | None:
        scheme, _, token = shown.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip()
        return self._find_owner(token, now) if owner.is_ticket(token) else self._keys.find(token)

    def _find_owner(self, token: str, now: float) -> Key | None:
        end = owner.valid_until(self._secret, self._endpoint, token, now) if self._secret is not None else None
        from modeldeploy.serving.keyring import Key

        return None if end is None else Key(OWNER, OWNER, tuple(Scope), "", now, end)


def owners_secret(path: str) -> bytes | None:
    """Read the owner's secret; None, with a word in the log, when there is none: then only keys are taken."""
    if not path:
        return None
    try:
        return owner.read_secret(Path(path))
    except (OSError, ModelDeployError) as error:
        _log.error("the owner's tickets are not taken: %s", error)
        return None


def _unknown(shown: str) -> Response:
    # The same for a key that is wrong, expired or revoked: a guesser learns nothing.
    challenge = 'Bearer realm="modeldeploy"' + (', error="invalid_token"' if shown else "")
    message = "this key is not accepted" if shown else "an API key is needed: send 'Authorization: Bearer md_...'"
    return failure(401, message, headers={"www-authenticate": challenge})


def _forbidden(key: Key, scope: Scope) -> Response:
    challenge = f'Bearer realm="modeldeploy", error="insufficient_scope", scope="{scope.value}"'
    message = f"key {key.id} has no scope {scope.value!r}"
    return failure(403, message, headers={"www-authenticate": challenge})
