"""Who may ask: shared access signatures are signed again, tokens of Entra are those that this rehearsal gave out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote_plus

import attrs

from modeldeploy.simulate.iothub.errors import ServiceError

_PREFIX = "SharedAccessSignature "


def _refused(why: str) -> ServiceError:
    return ServiceError(401, "IotHubUnauthorizedAccess", f"Unauthorized: {why}")


@attrs.frozen
class Access:
    """The hub's name and its one policy."""

    host: str
    policy: str
    key: str = attrs.field(repr=False)
    """In base64."""
    tokens: frozenset[str] = attrs.field(default=frozenset(), repr=False)

    @property
    def connection_string(self) -> str:
        """Write what a user copies from the portal."""
        return f"HostName={self.host};SharedAccessKeyName={self.policy};SharedAccessKey={self.key}"

    def check(self, given: str) -> None:
        """Raise what the service answers when nobody who may asks."""
        if given.startswith("Bearer "):
            if given.removeprefix("Bearer ") not in self.tokens:
                raise _refused("the token is not known")
        elif given.startswith(_PREFIX):
            self._check_signature(dict(parse_qsl(given.removeprefix(_PREFIX))))
        else:
            raise _refused("there is no Authorization header")

    def _check_signature(self, parts: Mapping[str, str]) -> None:
        if parts.get("skn") != self.policy or parts.get("sr", "").lower() != self.host.lower():
            raise _refused("the signature is of another policy or hub")
        text = f"{quote_plus(parts['sr'])}\n{parts.get('se', '')}"
        own = base64.b64encode(hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()).decode()
        if not hmac.compare_digest(own, parts.get("sig", "")):
            raise _refused("the signature does not match")
        if not parts.get("se", "").isdecimal() or int(parts["se"]) < time.time():
            raise _refused("the signature has expired")
