"""The head of a request: its headers read in one pass, and judged before a byte of the body is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from modeldeploy.serving import targets
from modeldeploy.serving.limits import Limits
from modeldeploy.serving.messages import Request, Response, failure

_VERSIONS = frozenset({"1.0", "1.1"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# Twice the same header with two values is how requests are smuggled past a proxy.
_ONCE = frozenset({"host", "content-length", "content-type", "transfer-encoding", "inference-header-content-length"})
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_MOST_DIGITS = 12
_OTHER = (0, -1)
LARGEST_IN_PARTS = 1 << 16
"""What is larger and comes in several parts is read as if it were the first of its kind."""
# What makes a connection do more than answer and go on.
_STAYS = "keep-alive"
_EVENTFUL = frozenset({"expect", "te", "trailer", "transfer-encoding", "upgrade"})
# As most clients write them: to look a name up takes a third of the time of reading it.
_NAMES = {
    name.encode(): name.lower()
    for usual in (
        "Host", "User-Agent", "Accept", "Accept-Encoding", "Connection", "Content-Type", "Content-Length", "Authorization",
        "Inference-Header-Content-Length", "Modeldeploy-Endpoint", "Modeldeploy-Timeout", "Modeldeploy-Revision",
    )
    for name in (usual, usual.lower())
}  # fmt: skip


@attrs.define(slots=True)
class Head:
    """Method and headers of a request that may go on."""

    method: str
    target: bytes
    headers: dict[str, str]
    old: bool
    """Whether it came as HTTP/1.0, where keeping the connection must be said."""

    def copy(self) -> Head:
        """Give one whose headers may be changed."""
        return Head(self.method, self.target, self.headers.copy(), self.old)

    def request(self, body: bytes) -> Request | None:
        """Make the request of it; None when its target is not a path."""
        target = targets.read(self.target)
        return None if target is None else Request(self.method, *target, self.headers, body)


@attrs.frozen(slots=True, eq=False)
class Repeat:
    """A head that clients send again and again, whatever the length of the body: comparing bytes takes the place of reading it."""

    before: bytes
    """Up to the length, or all of it where there is none."""
    after: bytes
    head: Head
    path: str
    query: str

    @classmethod
    def of(cls, data: bytes, head: Head) -> Repeat | None:
        """Remember the head of a request that came in one piece; None where its bytes alone do not say what comes."""
        target = targets.read(head.target)
        stays = not head.old and head.headers.get("connection", _STAYS).lower() == _STAYS
        raw = b"".join(data.partition(_END)[:2])
        if target is None or not (raw.endswith(_END) and stays and _EVENTFUL.isdisjoint(head.headers)):
            return None
        found = _LENGTH.search(raw)
        start, end = found.span(1) if found else (len(raw), len(raw))
        repeat = cls(raw[:start], raw[end:], head, *target)
        return repeat if repeat.body(data) is not None else None

    def body(self, data: bytes) -> bytes | None:
        """Give the body of a whole request with this head; None of anything else."""
        start, end = self._span(data)
        return data[start:] if end == len(data) else None

    def is_part(self, data: bytes) -> bool:
        """Whether this is a request with this head that lacks some of its body, as many clients send it."""
        return len(data) < self._span(data)[1] <= LARGEST_IN_PARTS

    def _span(self, data: bytes) -> tuple[int, int]:
        """Say where in the data of one request its body starts and ends; (0, -1) when its head is another one, or not whole."""
        if not data.startswith(self.before):
            return _OTHER
        if not self.after:
            return len(self.before), len(self.before)
        end = data.find(b"\r", len(self.before))
        length = data[len(self.before) : end]
        if not length.isdigit() or len(length) > _MOST_DIGITS or not data.startswith(self.after, end):
            return _OTHER
        start = end + len(self.after)
        return start, start + int(length)


def read(method: str, target: bytes, version: str, lines: list[tuple[bytes, bytes]], limits: Limits) -> Head | Response:
    """Read the header lines; the answer that refuses the request, where its head alone says so."""
    if version not in _VERSIONS:
        return failure(505, "only HTTP/1.1 is spoken here")
    if len(lines) > limits.max_headers or _size(target, lines) > limits.max_head:
        return too_large(limits)
    headers, twice = _headers(lines)
    if twice:
        return failure(400, f"header {twice!r} occurs more than once")
    if "host" not in headers and version == "1.1":
        return failure(400, "header 'host' is missing")
    refusal = _judge_length(method, headers, limits) or _judge_expectations(headers)
    # Whoever has the body needs no length, and those who send the same head with bodies of other lengths share its headers.
    headers.pop("content-length", None)
    return refusal or Head(method, target, headers, old=version == "1.0")


def too_large(limits: Limits) -> Response:
    """Refuse a head above the limit."""
    return failure(431, f"the request's head is larger than {limits.max_head} bytes")


def body_too_large(limits: Limits) -> Response:
    """Refuse a body above the limit."""
    return failure(413, f"the body is larger than {limits.max_body} bytes")


def _size(target: bytes, lines: Iterable[tuple[bytes, bytes]]) -> int:
    size = len(target)
    for name, value in lines:
        size += len(name) + len(value) + 4
    return size


def _headers(lines: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], str]:
    """Give the headers by lower-case name, and the name of one that may not occur twice and does."""
    headers: dict[str, str] = {}
    twice = ""
    for name, value in lines:
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1")
        if key in headers:
            twice = key if key in _ONCE else twice
            text = f"{headers[key]}, {text}"
        headers[key] = text
    return headers, twice


def _judge_length(method: str, headers: dict[str, str], limits: Limits) -> Response | None:
    length, transfer = headers.get("content-length"), headers.get("transfer-encoding")
    if transfer is not None:
        if length is not None or transfer.strip().lower() != "chunked":
            return failure(400, "'transfer-encoding' must be 'chunked' and stand without 'content-length'")
        return None
    if length is None:
        return failure(411, "header 'content-length' is missing") if method in _WITH_BODY else None
    if not length.isdecimal():
        return failure(400, "header 'content-length' is not a number")
    return body_too_large(limits) if int(length) > limits.max_body else None


def _judge_expectations(headers: dict[str, str]) -> Response | None:
    if headers.get("expect", "100-continue").lower() != "100-continue":
        return failure(417, "only '100-continue' can be expected here")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return failure(415, "compressed bodies are not read; send the body as it is")
    return None
