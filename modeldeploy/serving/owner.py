"""How the owner of a state directory asks its own endpoints without a key: tickets that are good for one endpoint and one minute.

Both sides know a secret file that only the owner can read. The secret itself never travels: whoever listens on a port that an endpoint has
left would get it. What they get is worth nothing elsewhere, nor a minute later.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from modeldeploy.errors import IntegrityError
from modeldeploy.serving.files import check_ours, create_file

LIFE_S = 60
_PREFIX = "md_owner_"
_SECRET_BYTES = 32
_FOR_ALL = 0o077


def make_secret(path: Path) -> None:
    """Write the secret file unless it is there."""
    if not path.exists():
        create_file(path, secrets.token_bytes(_SECRET_BYTES))


def read_secret(path: Path) -> bytes:
    """Read the secret; IntegrityError when others may read or write it."""
    with path.open("rb") as stream:
        found = os.fstat(stream.fileno())
        check_ours(path, found)
        if os.name == "posix" and found.st_mode & _FOR_ALL:
            message = f"{str(path)!r} can be read by others than you"
            raise IntegrityError(message, hint=f"delete it and run modeldeploy stop; a new one is made: {path}")
        return stream.read()


def ticket(secret: bytes, endpoint: str, now: float) -> str:
    """Make a ticket for one endpoint that is good until ``LIFE_S`` seconds after ``now``."""
    until = f"{int(now) + LIFE_S:x}"
    return f"{_PREFIX}{until}_{_mac(secret, endpoint, until)}"


def is_ticket(token: str) -> bool:
    """Whether ``token`` has the form of a ticket."""
    return token.startswith(_PREFIX)


def valid_until(secret: bytes, endpoint: str, token: str, now: float) -> float | None:
    """Say how long a ticket is good; None when it was not made with this secret for this endpoint, or is over."""
    until, _, mac = token.removeprefix(_PREFIX).partition("_")
    if not hmac.compare_digest(mac.encode(errors="replace"), _mac(secret, endpoint, until).encode()):
        return None
    # Only now is it known to be a number of ours.
    end = int(until, 16)
    return end if now < end <= now + LIFE_S else None


def _mac(secret: bytes, endpoint: str, until: str) -> str:
    message = f"modeldeploy owner\n{endpoint}\n{until}".encode(errors="replace")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
