"""Which revision a key belongs to: the same in every process, and monotone while shares grow."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

KEY_HEADER = "modeldeploy-key"
"""Header whose value is the key of a request, wherever assignment sticks to one."""


def assign(weights: Mapping[str, int], key: str) -> str | None:
    """Give the revision that a key belongs to, with probability in proportion to its weight; None without weights.

    Weighted rendezvous hashing (Thaler and Ravishankar 1998; the logarithmic score: Schindelhauer and Schomaker 2005): every revision draws
    ``-ln(u) / weight`` with ``u`` from a hash of its name and the key, and the least wins. Raising one weight while the others keep their
    proportions lowers that revision's draws alone, so keys move to it and nowhere else. The draws differ for each pair of revision and key,
    so the keys that see one new revision first are not the ones that see the next one first.

    >>> [assign({"old": 50, "new": 50}, key) for key in ("ana", "ben", "cem")]
    ['old', 'old', 'new']
    """
    live = {revision: weight for revision, weight in weights.items() if weight}
    return min(live, key=lambda revision: (_draw(revision, key) / live[revision], revision), default=None)


def key_text(value: object) -> str | None:
    """Write a key as text, the same wherever it comes from: 7, 7.0 and "7" are one key. None for what is no key.

    >>> key_text(7.0), key_text("ana"), key_text(True), key_text("")
    ('7', 'ana', 'true', None)
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not value.is_integer():
        return None if math.isnan(value) else str(value)
    if isinstance(value, int | float):
        return str(int(value))
    return value if isinstance(value, str) and value else None


def to_header(key: str) -> str:
    """Write a key as a header's value: HTTP's libraries take latin-1 letters, and the bytes are to be UTF-8."""
    return key.encode().decode("latin-1")


def from_header(value: str) -> str:
    """Read a key from a header's value, which HTTP's libraries give in latin-1; what is not UTF-8 is taken as it is.

    >>> from_header(to_header("Zo\u00eb")) == "Zo\u00eb"
    True
    """
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _draw(revision: str, key: str) -> float:
    digest = hashlib.blake2b(f"{revision}\0{key}".encode(), digest_size=8).digest()
    # In (0, 1): neither end, so that the logarithm is finite and not zero.
    return -math.log((int.from_bytes(digest) + 0.5) / 2.0**64)
