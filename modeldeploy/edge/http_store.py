"""A fleet's store behind HTTP: the little hub (``modeldeploy.edge.hub``), or any server with GET, PUT and DELETE.

Only ``list`` needs the hub; a device never lists.
"""

from __future__ import annotations

import contextlib
import http.client
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import orjson

from modeldeploy.edge.stores import MAX_DOCUMENT, Partial, Tick, bounded
from modeldeploy.errors import (
    AccessDeniedError,
    CredentialsError,
    ModelDeployError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.packaging.manifest import check_path

TIMEOUT_S = 10.0
_NOT_MODIFIED, _UNAUTHENTICATED, _FORBIDDEN, _PAST_THE_END, _TOO_MANY = 304, 401, 403, 416, 429
_MOVED = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({404, 410})
_PARTIAL = 206


class HttpStore:
    """One base address; ``headers`` go to it and to nowhere that it redirects to. Proxies are those of the environment."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._timeout = timeout
        # Without the handlers for files and FTP that urllib brings.
        self._opener = urllib.request.OpenerDirector()
        for handler in _HANDLERS:
            self._opener.add_handler(handler())
        self._seen: dict[str, tuple[str, bytes]] = {}

    def get(self, path: str) -> bytes | None:
        """Read a small document whole; one that has not changed since is not sent again (ETag)."""
        etag, known = self._seen.get(path, ("", b""))
        with self._ask("GET", path, {"if-none-match": etag} if etag else {}) as answer:
            if answer is None or answer.status == _NOT_MODIFIED:
                return None if answer is None else known
            data = bounded(answer.read(MAX_DOCUMENT + 1), path)
            if answer.headers.get("etag"):
                self._seen[path] = (answer.headers["etag"], data)
            return data

    def get_to(self, path: str, file: Path, *, size: int | None = None, tick: Tick | None = None) -> bool:
        """Fetch on from where an earlier attempt stopped, where the server can (Range)."""
        with Partial(file, size) as partial:
            headers = {"range": f"bytes={partial.have}-"} if partial.have else {}
            with self._ask("GET", path, headers) as answer:
                if answer is None:
                    partial.absent = True
                elif answer.status != _PAST_THE_END:
                    _receive(answer, partial, tick)
        return not partial.absent

    def put(self, path: str, data: bytes | Path) -> None:
        """Send it in one request."""
        if isinstance(data, bytes):
            self._send("PUT", path, data, len(data))
        else:
            with data.open("rb") as stream:
                self._send("PUT", path, stream, data.stat().st_size)

    def list(self, prefix: str) -> Iterable[str]:
        """Ask the hub what there is; UnsupportedError when the server is none."""
        check_path(prefix.rstrip("/"))
        with self._ask("GET", None, {}, query=f"?list={urllib.parse.quote(prefix)}") as answer:
            data = b"" if answer is None else answer.read(MAX_DOCUMENT)
        with contextlib.suppress(orjson.JSONDecodeError):
            return sorted(str(each) for each in orjson.loads(data))
        message = f"{self.url} cannot list what it holds"
        raise UnsupportedError(
            message, hint="run the fleet over python -m modeldeploy.edge.hub, a directory or a bucket"
        )

    def modified(self, path: str) -> float | None:
        """Ask when it was written."""
        with self._ask("HEAD", path, {}) as answer:
            if answer is None or not answer.headers.get("last-modified"):
                return None
            return parsedate_to_datetime(answer.headers["last-modified"]).timestamp()

    def delete(self, path: str) -> None:
        """Have it removed."""
        with self._ask("DELETE", path, {}):
            pass

    def _send(self, method: str, path: str, data: Any, length: int) -> None:
        headers = {"content-length": str(length), "content-type": "application/octet-stream"}
        with self._ask(method, path, headers, data=data) as answer:
            if answer is None:
                message = f"{self.url} takes no {path!r}"
                raise UnavailableError(message, hint="is it the address of the fleet's hub?")

    @contextlib.contextmanager
    def _ask(
        self, method: str, path: str | None, headers: Mapping[str, str], *, query: str = "", data: Any = None
    ) -> Iterator[Any]:
        """Give the answer, None for one that says that there is nothing; errors of ours for everything else."""
        url = f"{self.url}/{urllib.parse.quote(check_path(path)) if path is not None else ''}{query}"
        request = urllib.request.Request(url, data=data, method=method, headers=dict(headers))  # noqa: S310 - the opener knows http(s) alone
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)
        with self._translated(method, path):
            answer = self._opener.open(request, timeout=self._timeout)
            if answer is None:
                message = f"{self.url} points to something that is not HTTP"
                raise OSError(message)
            with answer:
                yield None if answer.status in _ABSENT else _checked(answer, method, path)

    @contextlib.contextmanager
    def _translated(self, method: str, path: str | None) -> Iterator[None]:
        try:
            yield
        except ModelDeployError:  # one of which is an OSError
            raise
        except (OSError, http.client.HTTPException) as error:
            message = f"{method} {path!r} at {self.url} failed: {error}"
            raise UnavailableError(message, hint="it is tried again") from error


class _Follow(urllib.request.HTTPErrorProcessor):
    """Follows redirections, and leaves every other status to be read here."""

    def http_response(self, request: Any, response: Any) -> Any:
        """Pass an answer on."""
        if response.status in _MOVED:
            return self.parent.error("http", request, response, response.status, response.reason, response.headers)
        return response

    https_response = http_response


_HANDLERS: tuple[type[urllib.request.BaseHandler], ...] = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    _Follow,
)


def _receive(answer: Any, partial: Partial, tick: Tick | None) -> None:
    if answer.status != _PARTIAL:
        partial.restart()
    left = int(answer.headers.get("content-length") or -1)
    while block := answer.read(Partial.BLOCK):
        left -= len(block)
        partial.write(block, tick)
    # http.client gives what came when a connection breaks in the middle, and no error.
    if left > 0:
        message = f"the connection broke {left} bytes before the end"
        raise OSError(message)


def _checked(answer: Any, method: str, path: str | None) -> Any:
    """Let through what a store says in the course of things."""
    status = answer.status
    if status < 300 or status in {_NOT_MODIFIED, _PAST_THE_END}:  # noqa: PLR2004 - HTTP's own border
        return answer
    message = f"{method} {path!r} was answered with status {status}"
    if status == _UNAUTHENTICATED:
        raise CredentialsError(message, hint="give the token of the hub: --token-file, or headers=")
    if status == _FORBIDDEN:
        raise AccessDeniedError(message, hint="this token may not do that at the hub")
    if status == _TOO_MANY:
        raise ThrottledError(message, hint="it is tried again")
    raise UnavailableError(message, hint="it is tried again")
