"""One HTTP request to an endpoint on this machine, and what its answer means."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from modeldeploy.backends.local.connections import Address, Answer, BrokenError, Connections, NobodyThereError
from modeldeploy.errors import (
    AccessDeniedError,
    CredentialsError,
    InvalidRequestError,
    NotFoundError,
    PredictionError,
    ThrottledError,
    UnavailableError,
)
from modeldeploy.serving.messages import REVISION_HEADER
from modeldeploy.values.serving import Payload

_REFUSED, _FAILED, _THROTTLED, _UNAVAILABLE, _MISDIRECTED = 400, 500, 429, 503, 421
_UNKNOWN, _FORBIDDEN = 401, 403
# The front ends a request at its deadline; this much later we stop waiting for it to say so.
_MARGIN_S = 1.0
# Names of our own in Payload.headers that are no HTTP headers.
PATH = "path"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class StaleAddressError(Exception):
    """Nobody, or somebody else, listens where the endpoint was."""


class Caller:
    """Keeps connections open between requests; safe to use from several threads, and in a process that was forked."""

    def __init__(self) -> None:
        self._connections = Connections()

    def call(
        self,
        url: str,
        endpoint: str,
        payload: Payload,
        *,
        revision: str | None,
        timeout: float,
        repeatable: Callable[[], bool],
        shown: str | None = None,
    ) -> Payload:
        """Send one request; StaleAddressError when it reached nobody, so that it may be sent again.

        One whose connection breaks is sent once more if the server cannot have acted on it, or, where it can, if the model is
        ``repeatable``; never after a part of an answer. ``shown`` is the value of its ``Authorization`` header, which stands in no value
        that somebody might print.
        """
        until = time.monotonic() + timeout
        for last in (False, True):
            try:
                return _read(endpoint, self._ask(url, endpoint, payload, until, revision=revision, shown=shown))
            except BrokenError as error:
                if last or error.answered or (error.asked and not repeatable()):
                    raise _broken(endpoint, error) from error
            except TimeoutError as error:
                message = f"endpoint {endpoint!r} did not answer within {timeout:.6g} s"
                raise UnavailableError(message, hint="give it more time, or look at its logs") from error
        raise AssertionError(endpoint)

    def _ask(
        self, url: str, endpoint: str, payload: Payload, until: float, *, revision: str | None, shown: str | None
    ) -> Answer:
        address = _address(url)
        within = max(until - time.monotonic(), 0.001)
        try:
            head = _head(address, endpoint, payload, within, revision=revision, shown=shown)
        except ValueError as error:  # a header that cannot be one
            message = f"the request to endpoint {endpoint!r} cannot be sent: {error}"
            raise InvalidRequestError(message, hint="look at its headers and at revision=") from error
        try:
            return self._connections.ask(address, head, payload.body, until + _MARGIN_S)
        except NobodyThereError as error:
            raise StaleAddressError from error

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()


@functools.lru_cache
def _address(url: str) -> Address:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


@functools.lru_cache
def _target(path: str) -> str:
    return quote(path, safe="/%?=&:@!$'()*+,;~")


def _head(
    address: Address, endpoint: str, payload: Payload, within: float, *, revision: str | None, shown: str | None
) -> bytes:
    """Write the head of a request; ValueError when a header holds what no header may."""
    headers = {**payload.headers, "modeldeploy-endpoint": endpoint, "modeldeploy-timeout": f"{within:.6g}"}
    path = headers.pop(PATH, f"/v2/models/{endpoint}/infer")
    if revision is not None:
        headers[REVISION_HEADER] = revision
    if shown is not None:
        headers["authorization"] = shown
    lines = [f"POST {_target(path)} HTTP/1.1", f"host: {address[0]}:{address[1]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(payload.body)}")
    if _CONTROL.search("".join(lines)):
        message = "a header holds a control character"
        raise ValueError(message)
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _broken(endpoint: str, error: BrokenError) -> UnavailableError:
    message = f"the connection to endpoint {endpoint!r} broke before the answer was there"
    known = error.asked or error.answered
    hint = "the request may have been predicted; send it again if that does no harm" if known else "send it again"
    return UnavailableError(message, retry_after=0.1, hint=hint)


def _read(endpoint: str, answer: Answer) -> Payload:
    status, headers, body = answer.status, answer.headers, answer.body
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
    if status == _UNKNOWN:
        raise CredentialsError(message, hint="make a key with: modeldeploy keys create NAME", context=context)
    if status == _FORBIDDEN:
        raise AccessDeniedError(message, hint="make a key with this scope", context=context)
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
