"""Tokens as Microsoft Entra ID would issue them, for audiences of this simulator and no other; checked on every request."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid

import attrs
import orjson

from modeldeploy.simulate.azureml.world import Site
from modeldeploy.simulate.clock import Clock

AUDIENCE = "https://ml.azure.com"
_HEADER = {"typ": "JWT", "alg": "HS256"}


@attrs.frozen
class Token:
    """A token with its times, in seconds since the epoch."""

    text: str
    issued: float
    until: float

    @property
    def refresh(self) -> float:
        """When it is time for a new one."""
        return (self.issued + self.until) / 2


@attrs.define(eq=False)
class Tokens:
    """Issues tokens and knows its own."""

    clock: Clock
    site: Site
    _secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32))

    def issue(self, audience: str, until: float) -> Token:
        """Make a token for an audience that is good until then."""
        now = self.clock.now()
        claims = {
            "aud": audience, "iss": f"https://sts.windows.net/{self.site.tenant}/", "tid": self.site.tenant, "oid": self.site.workspace_id,
            "iat": now, "nbf": now, "exp": until, "jti": str(uuid.uuid4()), "appid": self.site.workspace_id,
        }  # fmt: skip
        text = f"{_packed(orjson.dumps(_HEADER))}.{_packed(orjson.dumps(claims))}"
        return Token(f"{text}.{self._sign(text)}", now, until)

    def audience(self, text: str) -> str | None:
        """Tell for whom a token is; None when it is not one of these, or its time has passed."""
        signed, _, signature = text.rpartition(".")
        if not signed or not hmac.compare_digest(self._sign(signed), signature):
            return None
        claims = orjson.loads(_unpacked(signed.partition(".")[2]))
        return str(claims["aud"]) if claims["exp"] > self.clock.now() else None

    def _sign(self, text: str) -> str:
        return _packed(hmac.new(self._secret, text.encode(), hashlib.sha256).digest())


def bearer(header: str) -> str:
    """Take the token out of an Authorization header; empty when there is none."""
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
