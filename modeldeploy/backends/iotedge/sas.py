"""Shared access signatures of IoT Hub, made here: HMAC-SHA256 over the hub's name and the time of expiry."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from urllib.parse import quote_plus, urlencode

import attrs

from modeldeploy.errors import ConfigurationError

_HINT = "copy it from the hub's shared access policies: HostName=...;SharedAccessKeyName=...;SharedAccessKey=..."


@attrs.frozen
class Policy:
    """A shared access policy of a hub."""

    host: str
    name: str
    key: str = attrs.field(repr=False)
    """In base64."""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a connection string; ConfigurationError says what is missing, and never shows the key."""
        parts = dict(part.partition("=")[::2] for part in text.split(";") if "=" in part)
        missing = [each for each in ("HostName", "SharedAccessKeyName", "SharedAccessKey") if not parts.get(each)]
        if missing:
            message = f"the connection string of the hub has no {missing[0]}"
            raise ConfigurationError(message, hint=_HINT)
        try:
            base64.b64decode(parts["SharedAccessKey"], validate=True)
        except binascii.Error as error:
            message = "the SharedAccessKey of the connection string is not base64"
            raise ConfigurationError(message, hint=_HINT) from error
        return cls(parts["HostName"], parts["SharedAccessKeyName"], parts["SharedAccessKey"])

    def token(self, until: int) -> str:
        """Sign a token that holds until then, in seconds since the epoch."""
        text = f"{quote_plus(self.host)}\n{until}"
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        parts = {"sr": self.host, "sig": base64.b64encode(digest).decode(), "se": until, "skn": self.name}
        return f"SharedAccessSignature {urlencode(parts)}"
