"""Shared access signatures of the storage account: made as Azure Storage documents it, and checked on every request."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

import attrs

VERSION = "2020-12-06"
# What a service SAS signs after the resource's name, in this order (Azure Storage, "Create a service SAS", version 2020-12-06).
_SIGNED = ("si", "sip", "spr", "sv", "sr", "", "ses", "rscc", "rscd", "rsce", "rscl", "rsct")


@attrs.frozen
class Key:
    """The account's name and its key, in base64."""

    account: str
    key: str

    def container(self, container: str, permissions: str, until: float) -> str:
        """Make a signature for a container and all that is in it."""
        query = {"sv": VERSION, "sr": "c", "sp": permissions, "se": _time(until)}
        return urlencode({**query, "sig": self._signature(query, container, "")})

    def valid(self, query: Mapping[str, str], container: str, blob: str) -> bool:
        """Say whether a signature is this account's, and for this resource."""
        named = blob if query.get("sr") == "b" else ""
        return hmac.compare_digest(self._signature(query, container, named), query.get("sig", ""))

    def _signature(self, query: Mapping[str, str], container: str, blob: str) -> str:
        name = "/".join(part for part in ("/blob", self.account, container, blob) if part)
        parts = [query.get("sp", ""), query.get("st", ""), query.get("se", ""), name]
        text = "\n".join([*parts, *(query.get(key, "") if key else "" for key in _SIGNED)])
        return self.sign(text)

    def sign(self, text: str) -> str:
        """Sign a text with the account's key."""
        return base64.b64encode(hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()).decode()


def expired(query: Mapping[str, str], now: float) -> bool:
    """Say whether the time of a signature has passed."""
    try:
        until = datetime.strptime(query.get("se", ""), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return True
    return until.timestamp() < now


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
