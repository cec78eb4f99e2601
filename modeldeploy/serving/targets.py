"""What a request line asks for; decoded once, in one place, so that whoever judges a path and whoever serves it see the same."""

from __future__ import annotations

from urllib.parse import unquote

import httptools


def read(url: bytes) -> tuple[str, str] | None:
    """Give the percent-decoded path and the query as it came; None for what is no path."""
    try:
        text = url.decode("ascii") if url.startswith(b"/") else _relative(url)
    except (UnicodeDecodeError, httptools.HttpParserInvalidURLError):
        return None
    path, _mark, query = text.partition("?")
    return (unquote(path) if "%" in path else path), query


def _relative(url: bytes) -> str:
    # The absolute form, which proxies send: http://host/path?query
    parsed = httptools.parse_url(url)
    path = (parsed.path or b"/").decode("ascii")
    return f"{path}?{parsed.query.decode('ascii')}" if parsed.query else path
