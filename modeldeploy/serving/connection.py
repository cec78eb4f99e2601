"""One client's connection: bytes to requests, answers to bytes, in order."""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import struct
from math import inf
from typing import TYPE_CHECKING, cast

import attrs
import httptools

from modeldeploy.serving import head as heads
from modeldeploy.serving.limits import Room
from modeldeploy.serving.messages import Request, Response, failure, unavailable

if TYPE_CHECKING:
    from modeldeploy.serving.http import HttpServer
    from modeldeploy.serving.ledger import Leftover

_log = logging.getLogger(__name__)
_PIPELINE = 16
_DISCARD_SECONDS = 1.0
_AT_ONCE = struct.pack("ii", 1, 0)
"""For a socket whose unsent data is thrown away when it is closed."""
_JOIN_LIMIT = 1 << 16
_USUAL, _MOST = 2, 64
_OK = 200


class _Phase(enum.Enum):
    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    REFUSED = enum.auto()
    PART = enum.auto()
    """A head that came before, and not yet all of its body."""
    LENT = enum.auto()
    """Somebody else reads and answers."""


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

    # A thousand clients may wait at once: what each of them holds counts.
    __slots__ = (
        "_again", "_body", "_body_start", "_deadline", "_head", "_head_size", "_limits", "_lines", "_loop", "_parser", "_paused", "_peer",
        "_phase", "_read", "_repeat", "_seen", "_server", "_size", "_transport", "_trust", "_turn", "_turns", "_unread_deadline", "_url",
    )  # fmt: skip

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._turns: list[_Turn] = []
        self._turn: _Turn | None = None
        self._phase = _Phase.IDLE
        self._deadline = inf
        self._unread_deadline = inf
        self._paused = False
        self._repeat: heads.Repeat | None = None
        self._again = 0
        """How often the head came again, one time after the other."""
        self._seen = b""
        """The bytes of the request that is being read, while they may be remembered."""
        self._trust = _USUAL
        """How often it must before the client is lent."""
        self._fresh()

    def _fresh(self) -> None:
        self._url = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self._read: heads.Head | None = None
        """The head as it came."""
        self._head: heads.Head | None = None
        """The head as it was let in."""
        self._head_size = 0
        self._body: bytes | bytearray = b""
        self._size = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up; above the limit of connections the client is told to come back."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = _peer(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio leaves Nagle on for sockets made with protocol 0; with delayed acknowledgements that costs 40 ms an answer.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline = self._loop.time() + self._limits.header_timeout
        room = self._server.room(-1 if sock is None else sock.fileno())
        self._server.joined(self)
        if room is Room.NONE:
            self._transport.abort()
        elif room is Room.FOR_A_REFUSAL:
            self._refuse(unavailable("too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the client; what the model still works on for it is dropped when it comes."""
        self._drop_body()
        self._server.held -= sum(turn.size for turn in self._turns)
        self._turns.clear()
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; nothing more is parsed after a refusal."""
        if self._phase is _Phase.REFUSED:
            return
        if self._phase is _Phase.PART:
            self._phase, data = _Phase.IDLE, self._seen + data
        if self._phase is _Phase.IDLE:
            if self._repeat is not None and self._came_again(self._repeat, data):
                return
            self._again = 0
            self._begin()
            self._seen = data
        elif self._seen:
            self._seen = self._seen + data if len(self._seen) + len(data) <= heads.LARGEST_IN_PARTS else b""
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded here; the request was answered as HTTP/1.1, and the parser is of no more use.
            self._end_after_last()
        except httptools.HttpParserError:
            self._refuse(failure(400, "the request is not well-formed HTTP/1.1"))
        if self._seen and self._phase is _Phase.IDLE and self._read is not None:
            self._repeat = self._server.shared(heads.Repeat.of(self._seen, self._read))
            self._seen = b""
        # The head, and likewise what lies between two parts of a chunked body, must end within the limit.
        if self._head_size > self._limits.max_head and self._phase in {_Phase.HEAD, _Phase.BODY}:
            self._refuse(heads.too_large(self._limits))

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
        """Stop that clock, and go on with what waited for it."""
        self._unread_deadline = inf
        if self._turn is None and self._turns:
            self._next()

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
        if self._phase is _Phase.HEAD:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide from the head alone whether the body is wanted."""
        if self._phase is not _Phase.HEAD:
            return
        head = self._judge()
        if isinstance(head, Response):
            self._refuse(head)
            return
        self._head = head
        self._phase = _Phase.BODY
        self._head_size = 0
        self._body_start = self._loop.time()
        self._deadline = self._body_start + self._limits.body_timeout
        if "expect" in head.headers and not self._turns and self._turn is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _judge(self) -> heads.Head | Response:
        method = self._parser.get_method().decode("latin-1")
        head = heads.read(method, self._url, self._parser.get_http_version(), self._lines, self._limits)
        if isinstance(head, Response):
            return head
        self._read = head
        return self._admit(head)

    def _admit(self, head: heads.Head) -> heads.Head | Response:
        """Ask the gate whether a request may go on; it, and whoever handles the request, may change what they are given."""
        head = head.copy()
        gate = self._server.gate
        return head if gate is None else gate(head.method, head.target, head.headers, self._peer) or head

    def on_body(self, data: bytes) -> None:
        """Collect the body, within its limits of size and time."""
        if self._phase is not _Phase.BODY:
            return
        self._gather(data)
        self._head_size = 0
        self._hold(len(data))
        self._deadline = self._body_start + self._limits.body_timeout + self._size / max(1, self._limits.min_rate)
        if self._size > self._limits.max_body:
            self._refuse(heads.body_too_large(self._limits))

    def _hold(self, size: int) -> None:
        self._size += size
        self._server.held += size
        if self._server.held > self._limits.max_held:
            self._refuse(unavailable("too many large requests at once"))

    def _gather(self, data: bytes) -> None:
        # Most bodies come in one piece, which is then never copied.
        if not self._size:
            self._body = data
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data

    def on_message_complete(self) -> None:
        """Queue the whole request for its turn."""
        if self._phase is not _Phase.BODY or self._head is None:
            return
        request = self._head.request(bytes(self._body))
        if request is None:
            self._refuse(failure(400, "the request's target is not a path"))
            return
        turn = _Turn(request, None, bool(self._parser.should_keep_alive()), self._size, self._head.old)
        self._body, self._size = b"", 0
        self._phase = _Phase.IDLE
        self._deadline = inf
        self._queue(turn)

    def _came_again(self, repeat: heads.Repeat, data: bytes) -> bool:
        """Take a request, or what came of it so far, if its head was read before."""
        body = repeat.body(data)
        if body is not None:
            self._again += 1
            self._take_repeat(repeat, body)
        elif repeat.is_part(data):
            self._phase, self._seen = _Phase.PART, data
            self._deadline = self._loop.time() + self._limits.body_timeout
        return self._phase is _Phase.PART or body is not None

    def _take_repeat(self, repeat: heads.Repeat, body: bytes, tried: int = 0) -> None:
        """Queue a request whose head was read before; a gate that may think otherwise by now judges it anew."""
        if len(body) > self._limits.max_body:
            self._refuse(heads.body_too_large(self._limits))
            return
        head = repeat.head if self._server.steady else self._admit(repeat.head)
        if isinstance(head, Response):
            self._refuse(head)
            return
        self._hold(len(body))
        if self._phase is _Phase.IDLE:
            self._size = 0
            self._deadline = inf
            request = Request(head.method, repeat.path, repeat.query, head.headers, body, tried)
            self._queue(_Turn(request, None, keep=True, size=len(body)))

    # Taking turns.

    def _begin(self) -> None:
        if self._phase is _Phase.IDLE:
            self._phase = _Phase.HEAD
            self._deadline = self._loop.time() + self._limits.header_timeout
            self._fresh()

    def _refuse(self, answer: Response) -> None:
        if self._phase is _Phase.REFUSED:
            return
        self._drop_body()
        self._phase = _Phase.REFUSED
        self._deadline = inf
        self._queue(_Turn(None, answer, keep=False))

    def _drop_body(self) -> None:
        self._server.held -= self._size
        self._body, self._size = b"", 0

    def _end_after_last(self) -> None:
        last = self._turns[-1] if self._turns else self._turn
        if last is not None:
            last.keep = False
        self._phase = _Phase.REFUSED

    def _queue(self, turn: _Turn) -> None:
        if self._turn is None and not self._turns and self._unread_deadline == inf:
            self._start(turn)
            return
        self._turns.append(turn)
        if len(self._turns) >= _PIPELINE and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _next(self) -> None:
        self._start(self._turns.pop(0))

    def _start(self, turn: _Turn) -> None:
        self._turn = turn
        if turn.request is None:
            self._answer(turn, turn.answer or failure(500, "no answer"))
            return
        try:
            waiting = self._server.handler(turn.request)
            future = waiting if isinstance(waiting, asyncio.Future) else asyncio.ensure_future(waiting, loop=self._loop)
        except Exception:  # noqa: BLE001 - whatever a handler raises, the client gets an answer
            _log.exception("handler failed on %s", turn.request.path)
            self._answer(turn, failure(500, "the server failed"))
            return
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Response]) -> None:
        turn = cast("_Turn", self._turn)
        try:
            answer = future.result()
        except asyncio.CancelledError:
            answer = unavailable("the server is stopping")
        except Exception:  # noqa: BLE001 - whatever a handler raises, the client gets an answer
            _log.exception("handler failed")
            answer = failure(500, "the server failed")
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
            # Not while answers lie unread: a client that pipelines and does not read would have us hold all of them.
            if self._unread_deadline == inf:
                self._next()
        elif self._phase is _Phase.IDLE:
            self._deadline = self._loop.time() + self._limits.idle_timeout
            if self._again >= self._trust and self._server.lender is not None and answer.status == _OK:
                # Not before the answer was written, which some event loops do later.
                self._loop.call_soon(self._lend)
        if self._paused and len(self._turns) < _PIPELINE and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _write(self, turn: _Turn, answer: Response, *, keep: bool) -> None:
        last = b"" if keep and not turn.old else b"connection: %b\r\n" % (b"keep-alive" if keep else b"close")
        head = b"%b%d\r\n%b\r\n" % (self._server.heads.before_length(answer), len(answer.body), last)
        if turn.request is not None and turn.request.method == "HEAD":
            self._transport.write(head)
        elif len(answer.body) < _JOIN_LIMIT:
            self._transport.write(head + answer.body)
        else:
            self._transport.writelines((head, answer.body))

    def _finish(self, *, refused: bool) -> None:
        self._phase = _Phase.REFUSED
        for turn in self._turns:
            self._server.held -= turn.size
        self._turns.clear()
        if not refused or not self._transport.can_write_eof():
            self._transport.close()
            return
        # Closing while the client still sends would reset the connection and with it the answer that says what was wrong.
        try:
            self._transport.write_eof()
        except OSError:  # it is gone
            self._transport.abort()
        self._deadline = self._loop.time() + _DISCARD_SECONDS

    # Being lent.

    def _lend(self) -> None:
        idle = self._phase is _Phase.IDLE and self._turn is None and not self._turns
        busy = self._transport.is_closing() or self._server.draining or self._transport.get_write_buffer_size()
        if not idle or busy or self._server.lender is None or self._repeat is None:
            return
        self._again = 0
        self._transport.pause_reading()
        if self._server.lender(self, self._repeat):
            self._phase = _Phase.LENT
            self._deadline = inf
        else:
            self._trust = min(_MOST, 2 * self._trust)
            self._transport.resume_reading()

    def descriptor(self) -> int:
        """Give the descriptor of the socket; -1 where there is none."""
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def give_back(self, left: Leftover | None, refusal: Response | None = None, *, tried: int = 0) -> None:
        """Take over again from whoever it was lent to, with what is left to do; with a ``refusal`` the request left over is answered so.

        Without what is left to do, an answer stopped half way, and nothing can be said to the client any more. ``tried`` as in ``Request``.
        """
        if self._phase is not _Phase.LENT or self._transport.is_closing():
            return
        self._phase = _Phase.IDLE
        self._deadline = self._loop.time() + self._limits.idle_timeout
        if left is None:
            self._transport.abort()
            return
        if left.rest:
            self._transport.write(left.rest)
        self._transport.resume_reading()
        if left.request and refusal is not None:
            self._refuse(refusal)
        elif left.request:
            # It asked otherwise than before, or whoever had it is gone: next time it is watched for longer.
            self._trust = min(_MOST, 2 * self._trust)
            body = self._repeat.body(left.request) if self._repeat is not None and tried else None
            if self._repeat is not None and body is not None:
                self._take_repeat(self._repeat, body, tried)
            else:
                self.data_received(left.request)
        elif self._server.draining:
            self._transport.close()

    # What the server calls.

    def check_time(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        if now >= self._unread_deadline:
            self._reset()
        elif now < self._deadline:
            return
        elif self._phase in {_Phase.HEAD, _Phase.BODY, _Phase.PART}:
            self._refuse(failure(408, "the request took too long to arrive"))
        else:
            self._deadline = inf
            self._transport.close()

    def _reset(self) -> None:
        # Else the system keeps what the client does not read, and goes on offering it for minutes.
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if self._phase in {_Phase.IDLE, _Phase.REFUSED} and self._turn is None and not self._turns:
            self._transport.close()

    def abort(self) -> None:
        """Cut off."""
        self._transport.abort()


def _peer(transport: asyncio.BaseTransport) -> str:
    """Give the address of the other side; empty where it has none."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""
