"""API keys: made, listed and revoked in one private file that holds no secret, and looked up by a running server.

A key is ``md_<id>_<secret>``: the id may be shown and logged, the secret is 256 random bits. Only the SHA-256 of the whole is stored; for
a random secret of that length nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
import time
from collections.abc import Callable, Collection
from pathlib import Path

import attrs
import orjson

from modeldeploy.errors import ConfigurationError, ModelDeployError, NotFoundError
from modeldeploy.serving.access import Scope
from modeldeploy.serving.files import check_ours, locked, write_file
from modeldeploy.serving.ratelimit import Rate
from modeldeploy.serving.saying import Log
from modeldeploy.values.codec import from_document, to_document

PREFIX = "md"
_ID_BYTES = 6
_SECRET_BYTES = 32
_MAX_TOKEN = 200
_MAX_NAME = 80
_DAY_S = 86_400
_LOOK_S = 1.0
_log = Log(__name__)


@attrs.frozen
class Key:
    """What is known of a key; its secret is not."""

    id: str
    name: str
    """Who has it or what it is for."""
    scopes: tuple[Scope, ...]
    sha256: str = attrs.field(repr=False)
    created: float
    expires: float | None = None
    """Seconds since the epoch; None for never."""
    rate: float | None = None
    """Requests per second; None for the server's own limit."""
    burst: int | None = None

    def is_live(self, now: float) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


@attrs.frozen
class _Document:
    keys: tuple[Key, ...] = ()


@attrs.frozen
class Keyring:
    """The keys in one file; every change is whole, whoever else makes one at the same time."""

    path: Path

    def create(
        self,
        name: str,
        *,
        scopes: Collection[Scope | str] = (Scope.PREDICT,),
        days: float | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key; gives it and the text to hand out, which is nowhere stored and cannot be shown again."""
        chosen = _checked_scopes(scopes)
        _check(name, days)
        if burst and not rate:
            message = f"burst of a key is {burst!r} without a rate"
            raise ConfigurationError(message, hint="give both; rate is in requests per second")
        Rate.of(rate, burst)
        now = time.time()
        token = f"{PREFIX}_{secrets.token_hex(_ID_BYTES)}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        expires = None if days is None else now + days * _DAY_S
        key = Key(_id_in(token), name, chosen, _digest(token), now, expires, rate, burst)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.path):
            self._save((*self.list(), key))
        return key, token

    def list(self) -> tuple[Key, ...]:
        """Give every key, oldest first; none when there is no file."""
        try:
            with self.path.open("rb") as stream:
                check_ours(self.path, os.fstat(stream.fileno()))
                data = stream.read()
        except FileNotFoundError:
            return ()
        return self._parse(data)

    def live(self) -> tuple[Key, ...]:
        """Give the keys that have not expired."""
        now = time.time()
        return tuple(key for key in self.list() if key.is_live(now))

    def revoke(self, key_id: str) -> Key:
        """Take a key away; a running server refuses it a second later."""
        if not self.path.exists():
            raise self._unknown(key_id, ())
        with locked(self.path):
            keys = self.list()
            gone = next((key for key in keys if key.id == key_id), None)
            if gone is None:
                raise self._unknown(key_id, keys)
            self._save(tuple(key for key in keys if key is not gone))
        return gone

    def _save(self, keys: tuple[Key, ...]) -> None:
        write_file(self.path, orjson.dumps(to_document(_Document(keys)), option=orjson.OPT_INDENT_2) + b"\n")

    def _parse(self, data: bytes) -> tuple[Key, ...]:
        try:
            return from_document(_Document, orjson.loads(data)).keys
        except (orjson.JSONDecodeError, ConfigurationError, KeyError) as error:
            message = f"key file {str(self.path)!r} cannot be read: {error}"
            raise ConfigurationError(message, hint="restore it, or move it away and make new keys") from error

    def _unknown(self, key_id: str, keys: tuple[Key, ...]) -> NotFoundError:
        message = f"there is no key {key_id!r} in {str(self.path)!r}"
        return NotFoundError(message, hint=f"ids are {[key.id for key in keys]}")


class LiveKeys:
    """The keys that a running server takes; a changed file is noticed within a second."""

    def __init__(self, keyring: Keyring, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keyring = keyring
        self._clock = clock
        self._look_at = -math.inf
        self._seen: object = None
        self._generation = 0
        self._keys: dict[str, Key] = {}
        self._limits: dict[str, Rate | None] = {}

    def generation(self) -> int:
        """Look at the file, at most once a second; another number means that what was found before may not hold any more."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._look()
        return self._generation

    def find(self, token: str) -> Key | None:
        """Give the key that ``token`` is, expired or not; None for any other text."""
        self.generation()
        key = self._keys.get(_id_in(token)) if len(token) <= _MAX_TOKEN else None
        # Compared whole and in constant time; that an id exists is no secret.
        return key if key is not None and hmac.compare_digest(_digest(token), key.sha256) else None

    def limit(self, key_id: str) -> Rate | None:
        """Give a key's own limit; None where it has none."""
        return self._limits.get(key_id)

    def _look(self) -> None:
        seen = self._signature()
        if seen == self._seen:
            return
        try:
            self._take(self._keyring.list())
        except ModelDeployError as error:
            # A file that cannot be believed lets nobody in; one key too many would be worse than none.
            _log.error("no key is accepted: %s", error)
            self._take(())
        except OSError as error:  # no descriptor is free, say: nothing is known of a change, so look again
            _log.warning("the key file cannot be read now: %s", error)
            return
        self._seen = seen

    def _take(self, keys: tuple[Key, ...]) -> None:
        self._generation += 1
        self._keys = {key.id: key for key in keys}
        self._limits = {key.id: Rate.of(key.rate, key.burst) for key in keys}

    def _signature(self) -> object:
        try:
            found = self._keyring.path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid


def _id_in(token: str) -> str:
    prefix, _, rest = token.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _checked_scopes(scopes: Collection[Scope | str]) -> tuple[Scope, ...]:
    known = [scope.value for scope in Scope]
    try:
        chosen = {Scope(scope) for scope in scopes}
    except ValueError as error:
        message = f"scopes of a key are {scopes!r}"
        raise ConfigurationError(message, hint=f"known are {known}") from error
    if isinstance(scopes, str) or not chosen:
        message = f"scopes of a key are {scopes!r}"
        raise ConfigurationError(message, hint=f"pass one or both of {known} in a list")
    return tuple(scope for scope in Scope if scope in chosen)


def _check(name: str, days: float | None) -> None:
    if not (0 < len(name) <= _MAX_NAME and name.isprintable()):
        message = f"name of a key is {name!r}"
        raise ConfigurationError(message, hint=f"say in 1-{_MAX_NAME} printable characters who or what it is for")
    # Written so that nan is refused too.
    if days is not None and not 0 < days < math.inf:
        message = f"days of a key are {days!r}"
        raise ConfigurationError(message, hint="use a number above 0, or leave it out for a key that does not expire")
