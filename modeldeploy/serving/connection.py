"""One client's connection: bytes to requests, answers to bytes, in order."""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
from collections import deque
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import attrs
import httptools

from modeldeploy.serving.messages import Request, Response, failure, unavailable

if TYPE_CHECKING:
    from modeldeploy.serving.http import HttpServer

_log = logging.getLogger(__name__)
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# Twice the same header with two values is how requests are smuggled past a proxy.
_ONCE = frozenset({"host", "content-length", "content-type", "transfer-encoding", "inference-header-content-length"})
_PIPELINE = 16
_DISCARD_SECONDS = 1.0
_JOIN_LIMIT = 1 << 16


class _Phase(enum.Enum):
    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    REFUSED = enum.auto()


@attrs.define(slots=True)
class _Turn:
    """A request in its order; a refusal has its answer already."""

    request: Request | None
    answer: Response | None
    keep: bool
    size: int = 0
    old: bool = False
    """Whether it came as HTTP/1.0, where keeping the connection must be said."""


class Connection(asyncio.Protocol):
    """Feeds the parser and answers turn by turn; every limit of ``Limits`` that concerns one client is kept here."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._turns: deque[_Turn] = deque()
        self._turn: _Turn | None = None
        self._phase = _Phase.IDLE
        self._deadline = inf
        self._unread_deadline = inf
        self._paused = False
        self._fresh()

    def _fresh(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._twice = ""
        self._head_size = 0
        self._count = 0
        self._body = bytearray()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up; above the limit of connections the client is told to come back."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio leaves Nagle on for sockets made with protocol 0; with delayed acknowledgements that costs 40 ms an answer.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline = self._loop.time() + self._limits.header_timeout
        full = len(self._server.connections) - self._limits.max_connections
        self._server.joined(self)
        if full >= self._limits.max_connections:
            self._transport.abort()
        elif full >= 0:
            self._refuse(unavailable("too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the client; what the model still works on for it is dropped when it comes."""
        self._server.held -= len(self._body) + sum(turn.size for turn in self._turns)
        self._body = bytearray()
        self._turns.clear()
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; nothing more is parsed after a refusal."""
        if self._phase is _Phase.REFUSED:
            return
        if self._phase is _Phase.IDLE:
            self._begin()
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded here; the request was answered as HTTP/1.1, and the parser is of no more use.
            self._end_after_last()
        except httptools.HttpParserError:
            self._refuse(failure(400, "the request is not well-formed HTTP/1.1"))
        # The head, and likewise what lies between two parts of a chunked body, must end within the limit.
        if self._head_size > self._limits.max_head and self._phase in {_Phase.HEAD, _Phase.BODY}:
            self._refuse(failure(431, f"the request's head is larger than {self._limits.max_head} bytes"))

    def eof_received(self) -> bool:
        """Keep a half-closed connection while answers are due."""
        due = self._turn is not None or bool(self._turns)
        if due:
            self._end_after_last()
        return due

    def pause_writing(self) -> None:
        """Start the clock for a client that does not read."""
        self._unread_deadline = self._loop.time() + self._limits.write_timeout

    def resume_writing(self) -> None:
        """Stop that clock."""
        self._unread_deadline = inf

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request; in a pipeline there may be several in one piece of data."""
        if self._phase is not _Phase.REFUSED:
            self._begin()

    def on_url(self, url: bytes) -> None:
        """Collect the target; long ones come in parts."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers of a chunked body are not headers and are dropped."""
        if self._phase is not _Phase.HEAD:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._count += 1
        if key in self._headers:
            if key in _ONCE:
                self._twice = key
            text = f"{self._headers[key]}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        """Decide from the head alone whether the body is wanted."""
        if self._phase is not _Phase.HEAD:
            return
        refusal = self._judge_head()
        if refusal is not None:
            self._refuse(refusal)
            return
        self._phase = _Phase.BODY
        self._head_size = 0
        self._body_start = self._loop.time()
        self._deadline = self._body_start + self._limits.body_timeout
        if "expect" in self._headers and not self._turns and self._turn is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Collect the body, within its limits of size and time."""
        if self._phase is not _Phase.BODY:
            return
        self._body += data
        self._head_size = 0
        self._server.held += len(data)
        size = len(self._body)
        self._deadline = self._body_start + self._limits.body_timeout + size / max(1, self._limits.min_rate)
        if size > self._limits.max_body:
            self._refuse(self._too_large())
        elif self._server.held > self._limits.max_held:
            self._refuse(unavailable("too many large requests at once"))

    def on_message_complete(self) -> None:
        """Queue the whole request for its turn."""
        if self._phase is not _Phase.BODY:
            return
        method = self._parser.get_method().decode("latin-1")
        request = _request(method, self._url, self._headers, bytes(self._body))
        if request is None:
            self._refuse(failure(400, "the request's target is not a path"))
            return
        old = self._parser.get_http_version() != "1.1"
        turn = _Turn(request, None, bool(self._parser.should_keep_alive()), len(request.body), old)
        self._body = bytearray()
        self._phase = _Phase.IDLE
        self._deadline = inf
        self._queue(turn)

    # Judging.

    def _judge_head(self) -> Response | None:
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            return failure(505, "only HTTP/1.1 is spoken here")
        if self._count > self._limits.max_headers or self._head_size_known() > self._limits.max_head:
            return failure(431, f"the request's head is larger than {self._limits.max_head} bytes")
        if self._twice:
            return failure(400, f"header {self._twice!r} occurs more than once")
        if "host" not in self._headers and version == "1.1":
            return failure(400, "header 'host' is missing")
        return self._judge_length() or self._judge_expectations()

    def _head_size_known(self) -> int:
        return len(self._url) + sum(len(key) + len(value) + 4 for key, value in self._headers.items())

    def _judge_length(self) -> Response | None:
        length, transfer = self._headers.get("content-length"), self._headers.get("transfer-encoding")
        if transfer is not None:
            if length is not None or transfer.strip().lower() != "chunked":
                return failure(400, "'transfer-encoding' must be 'chunked' and stand without 'content-length'")
            return None
        if length is None:
            wants_body = self._parser.get_method().decode("latin-1") in _WITH_BODY
            return failure(411, "header 'content-length' is missing") if wants_body else None
        if not length.isdecimal():
            return failure(400, "header 'content-length' is not a number")
        return self._too_large() if int(length) > self._limits.max_body else None

    def _judge_expectations(self) -> Response | None:
        if self._headers.get("expect", "100-continue").lower() != "100-continue":
            return failure(417, "only '100-continue' can be expected here")
        if self._headers.get("content-encoding", "identity").lower() != "identity":
            return failure(415, "compressed bodies are not read; send the body as it is")
        return None

    def _too_large(self) -> Response:
        return failure(413, f"the body is larger than {self._limits.max_body} bytes")

    # Taking turns.

    def _begin(self) -> None:
        if self._phase is _Phase.IDLE:
            self._phase = _Phase.HEAD
            self._deadline = self._loop.time() + self._limits.header_timeout
            self._fresh()

    def _refuse(self, answer: Response) -> None:
        if self._phase is _Phase.REFUSED:
            return
        self._server.held -= len(self._body)
        self._body = bytearray()
        self._phase = _Phase.REFUSED
        self._deadline = inf
        self._queue(_Turn(None, answer, keep=False))

    def _end_after_last(self) -> None:
        last = self._turns[-1] if self._turns else self._turn
        if last is not None:
            last.keep = False
        self._phase = _Phase.REFUSED

    def _queue(self, turn: _Turn) -> None:
        self._turns.append(turn)
        if len(self._turns) >= _PIPELINE and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if self._turn is None:
            self._next()

    def _next(self) -> None:
        turn = self._turn = self._turns.popleft()
        if turn.request is None:
            self._answer(turn, turn.answer or failure(500, "no answer"))
            return
        try:
            waiting = self._server.handler(turn.request)
            future = asyncio.ensure_future(waiting, loop=self._loop)
        except Exception:  # noqa: BLE001 - whatever a handler raises, the client gets an answer
            _log.exception("handler failed on %s", turn.request.path)
            self._answer(turn, failure(500, "the server failed"))
            return
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Response]) -> None:
        turn = cast("_Turn", self._turn)
        if future.cancelled():
            answer = unavailable("the server is stopping")
        elif error := future.exception():
            _log.error("handler failed", exc_info=error)
            answer = failure(500, "the server failed")
        else:
            answer = future.result()
        self._answer(turn, answer)

    def _answer(self, turn: _Turn, answer: Response) -> None:
        self._turn = None
        self._server.held -= turn.size
        if self._transport.is_closing():
            return
        keep = turn.keep and not self._server.draining
        self._write(turn, answer, keep=keep)
        if not keep:
            self._finish(refused=turn.request is None)
        elif self._turns:
            self._next()
        elif self._phase is _Phase.IDLE:
            self._deadline = self._loop.time() + self._limits.idle_timeout
        if self._paused and len(self._turns) < _PIPELINE and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _write(self, turn: _Turn, answer: Response, *, keep: bool) -> None:
        head = [_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} \r\n".encode()]
        head.extend(f"{key}: {value}\r\n".encode("latin-1", "replace") for key, value in answer.headers.items())
        head.append(b"date: %b\r\ncontent-length: %d\r\n" % (self._server.date, len(answer.body)))
        if not keep:
            head.append(b"connection: close\r\n")
        elif turn.old:
            head.append(b"connection: keep-alive\r\n")
        head.append(b"\r\n")
        if turn.request is not None and turn.request.method == "HEAD":
            self._transport.write(b"".join(head))
        elif len(answer.body) < _JOIN_LIMIT:
            self._transport.write(b"".join((*head, answer.body)))
        else:
            self._transport.writelines((b"".join(head), answer.body))

    def _finish(self, *, refused: bool) -> None:
        self._phase = _Phase.REFUSED
        for turn in self._turns:
            self._server.held -= turn.size
        self._turns.clear()
        if not refused or not self._transport.can_write_eof():
            self._transport.close()
            return
        # Closing while the client still sends would reset the connection and with it the answer that says what was wrong.
        self._transport.write_eof()
        self._deadline = self._loop.time() + _DISCARD_SECONDS

    # What the server calls.

    def check_time(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        if now >= self._unread_deadline:
            self._transport.abort()
        elif now < self._deadline:
            return
        elif self._phase is _Phase.HEAD or self._phase is _Phase.BODY:
            self._refuse(failure(408, "the request took too long to arrive"))
        else:
            self._deadline = inf
            self._transport.close()

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if self._phase in {_Phase.IDLE, _Phase.REFUSED} and self._turn is None and not self._turns:
            self._transport.close()

    def abort(self) -> None:
        """Cut off."""
        self._transport.abort()


def _request(method: str, url: bytes, headers: dict[str, str], body: bytes) -> Request | None:
    try:
        text = url.decode("ascii") if url.startswith(b"/") else _relative(url)
    except (UnicodeDecodeError, httptools.HttpParserInvalidURLError):
        return None
    path, _mark, query = text.partition("?")
    return Request(method, unquote(path) if "%" in path else path, query, headers, body)


def _relative(url: bytes) -> str:
    # The absolute form, which proxies send: http://host/path?query
    parsed = httptools.parse_url(url)
    path = (parsed.path or b"/").decode("ascii")
    return f"{path}?{parsed.query.decode('ascii')}" if parsed.query else path
