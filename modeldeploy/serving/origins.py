"""Whether a request that reached a loopback address was meant for it.

A web page anywhere can make a browser send requests to 127.0.0.1: under a host name of its own that it has let point there (DNS
rebinding), or across origins. The browser cannot hide either: the first shows in ``Host``, the second in ``Origin``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from modeldeploy.serving.messages import Response, failure

ANY = "*"
_SEEN = 64


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to ``host``; an unknown name is taken for no."""
    if host in {"localhost", "localhost."} or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


class HostCheck:
    """Refuses what names another host than this machine, or comes from another site's page."""

    def __init__(self, bound: str, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(each.lower() for each in (bound, *allowed))
        self._seen: set[str] = set()

    def __call__(self, _method: str, _url: bytes, headers: dict[str, str], _peer: str) -> Response | None:
        """Judge a request's head."""
        host = headers.get("host")
        if "origin" not in headers and (host is None or host in self._seen):
            return None
        return self._judge(host, headers.get("origin"))

    def _judge(self, host: str | None, origin: str | None) -> Response | None:
        # Without a host it is HTTP/1.0, which no browser speaks.
        if host is not None and not self._is_here(_name(host)):
            message = f"host {host[:80]!r} is not served here; if it is a proxy's, name it in allowed hosts"
            return failure(421, message, field="host")
        if origin is not None and not self._is_here(_site(origin)):
            return failure(403, f"pages of {origin[:80]!r} may not ask this server", field="origin")
        if host is not None and len(self._seen) < _SEEN:
            self._seen.add(host)
        return None

    def _is_here(self, name: str) -> bool:
        return name in self._allowed or is_loopback(name)


def _name(host: str) -> str:
    """Take the port and the brackets off; an empty text for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") if "@" not in host else ""
    except ValueError:
        return ""


def _site(origin: str) -> str:
    try:
        return (urlsplit(origin).hostname or "").rstrip(".")
    except ValueError:
        return ""
