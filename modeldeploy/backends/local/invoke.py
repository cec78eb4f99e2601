"""One HTTP request to an endpoint on this machine, and what its answer means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modeldeploy.errors import InvalidRequestError, NotFoundError, PredictionError, ThrottledError, UnavailableError
from modeldeploy.serving.messages import REVISION_HEADER
from modeldeploy.values.serving import Payload

if TYPE_CHECKING:
    import urllib3

_POOLS = 32
_CONNECTIONS = 32
_REFUSED, _FAILED, _THROTTLED, _UNAVAILABLE, _MISDIRECTED = 400, 500, 429, 503, 421
# The front ends a request at its deadline; this much later we stop waiting for it to say so.
_MARGIN_S = 1.0
# Names of our own in Payload.headers that are no HTTP headers.
PATH = "path"
_CONNECT_S = 5.0


class StaleAddressError(Exception):
    """Nobody, or somebody else, listens where the endpoint was."""


class Caller:
    """Keeps connections open between requests; a forked process makes its own."""

    def __init__(self) -> None:
        self._pid = 0
        self._pool: urllib3.PoolManager | None = None

    def call(self, url: str, endpoint: str, payload: Payload, *, revision: str | None, timeout: float) -> Payload:
        """Send one request; StaleAddressError when it reached nobody, so that it may be sent again."""
        import urllib3

        headers = {**payload.headers, "modeldeploy-endpoint": endpoint, "modeldeploy-timeout": f"{timeout:.6g}"}
        path = headers.pop(PATH, f"/v2/models/{endpoint}/infer")
        if revision is not None:
            headers[REVISION_HEADER] = revision
        limit = urllib3.Timeout(connect=min(timeout, _CONNECT_S), read=timeout + _MARGIN_S)
        try:
            answer = self._connections().request(
                "POST", url + path, body=payload.body, headers=headers, timeout=limit, retries=False, redirect=False
            )
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise StaleAddressError from error
        except urllib3.exceptions.TimeoutError as error:
            message = f"endpoint {endpoint!r} did not answer within {timeout:g} s"
            raise UnavailableError(message, hint="give it more time, or look at its logs") from error
        except ValueError as error:  # a header that cannot be one
            message = f"the request to endpoint {endpoint!r} cannot be sent: {error}"
            raise InvalidRequestError(message, hint="look at its headers and at revision=") from error
        except urllib3.exceptions.HTTPError as error:
            message = f"the connection to endpoint {endpoint!r} broke: {error}"
            raise UnavailableError(message, retry_after=0.1, hint="the request may be repeated") from error
        return _read(endpoint, answer.status, dict(_lower(answer.headers)), answer.data)

    def _connections(self) -> urllib3.PoolManager:
        import urllib3

        if self._pool is None or self._pid != os.getpid():
            # Two processes on one connection would read each other's answers.
            self._pool = urllib3.PoolManager(num_pools=_POOLS, maxsize=_CONNECTIONS)
            self._pid = os.getpid()
        return self._pool

    def close(self) -> None:
        """Close every connection."""
        if self._pool is not None and self._pid == os.getpid():
            self._pool.clear()
        self._pool = None


def _lower(headers: Any) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]


def _read(endpoint: str, status: int, headers: dict[str, str], body: bytes) -> Payload:
    if status < _REFUSED:
        return Payload(body, headers)
    if status == _MISDIRECTED:
        raise StaleAddressError
    said = _said(body)
    message = f"endpoint {endpoint!r} answered {status}: {said.get('error') or body[:200].decode(errors='replace')}"
    context = {"endpoint": endpoint, **({"revision": headers[REVISION_HEADER]} if REVISION_HEADER in headers else {})}
    if status in {_THROTTLED, _UNAVAILABLE}:
        cls = ThrottledError if status == _THROTTLED else UnavailableError
        raise cls(message, retry_after=_seconds(headers), context=context)
    if status >= _FAILED:
        raise PredictionError(message, status=status, body=body.decode(errors="replace"), context=context)
    if said.get("field") == REVISION_HEADER:
        raise NotFoundError(message, context=context)
    raise InvalidRequestError(message, field=said.get("field"), context=context)


def _said(body: bytes) -> Mapping[str, Any]:
    import orjson

    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _seconds(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
