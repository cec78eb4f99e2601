"""The HTTP server in front: a thread for each connection, kept alive, one write for each answer."""

from __future__ import annotations

import itertools
import logging
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer

_log = logging.getLogger(__name__)
_SPOOL = 16 * 1024 * 1024
HEADERS = "modeldeploy.headers"
"""Where the environment of a request has its headers as they came."""
_NO_BODY = frozenset({204, 304})
_CHUNK = 1024 * 1024
_Exchange = tuple[str, list[tuple[str, str]]]


class Server:
    """Bound to a port of the loopback device that the operating system chooses; serves from ``start`` to ``close``."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._inner = _bound(self._connections)
        self.port: int = self._inner.server_port
        self._thread = threading.Thread(target=self._inner.serve_forever, args=(0.05,), name="rehearsal", daemon=True)

    def start(self, app: WSGIApplication) -> None:
        """Serve an application."""
        self._inner.app = app
        self._thread.start()

    def close(self) -> None:
        """Stop taking connections and close those that are open."""
        if self._thread.is_alive():
            self._inner.shutdown()
            self._thread.join()
        self._inner.server_close()
        self._connections.close()


class Connections:
    """Those that are open now."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        """Know a connection that was taken."""
        with self._lock:
            self._open.add(connection)

    def discard(self, connection: socket.socket) -> None:
        """Forget one that has ended."""
        with self._lock:
            self._open.discard(connection)

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            for connection in self._open:
                _shut(connection)


def _nothing(_environ: WSGIEnvironment, _start_response: StartResponse) -> Iterable[bytes]:
    message = "there is no application yet"
    raise NotImplementedError(message)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _bound(connections: Connections) -> BaseWSGIServer:
    from werkzeug.serving import ThreadedWSGIServer

    class Bound(ThreadedWSGIServer):
        """Keeps silent about callers who went away, as a library must; the log has the others."""

        def handle_error(self, _request: object, client_address: object) -> None:
            _log.debug("a connection from %s failed", client_address, exc_info=True)

    return Bound("127.0.0.1", 0, _nothing, handler=_handler(connections))


def _handler(connections: Connections) -> type[Any]:
    from werkzeug.serving import WSGIRequestHandler

    class Handler(WSGIRequestHandler):
        """Reads a request whole before it is handled, so that the connection can be kept, and writes an answer at once."""

        protocol_version = "HTTP/1.1"
        # Without these the kernel holds the second of two small packets back until the first is acknowledged: 40 ms.
        disable_nagle_algorithm = True
        wbufsize = -1

        def setup(self) -> None:
            super().setup()
            connections.add(self.connection)

        def finish(self) -> None:
            connections.discard(self.connection)
            super().finish()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Keep silent: a library prints nothing."""

        def run_wsgi(self) -> None:
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.wfile.flush()
            environ = self.make_environ()
            # Names with an underscore, as metadata in Azure Storage has them, are not in the environment.
            environ[HEADERS] = self.headers
            try:
                self._exchange(environ)
            except ConnectionError:
                self.close_connection = True
                _shut(self.connection)

        def _exchange(self, environ: WSGIEnvironment) -> None:
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as body:
                _read_whole(environ, cast("IO[bytes]", body))
                _respond(self, self.server.app, environ)

    return Handler


def _read_whole(environ: WSGIEnvironment, into: IO[bytes]) -> None:
    """Read the request's body, and make the environment look as if it had come with its length."""
    source, chunked = environ["wsgi.input"], environ.pop("wsgi.input_terminated", False)
    left = None if chunked else int(environ.get("CONTENT_LENGTH") or 0)
    while left is None or left > 0:
        data = source.read(_CHUNK if left is None else min(_CHUNK, left))
        if not data:
            break
        into.write(data)
        left = None if left is None else left - len(data)
    if chunked:
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["CONTENT_LENGTH"] = str(into.tell())
    into.seek(0)
    environ["wsgi.input"] = into


def _respond(handler: BaseHTTPRequestHandler, app: WSGIApplication, environ: WSGIEnvironment) -> None:
    begun: list[_Exchange] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], _exc_info: object = None
    ) -> Callable[[bytes], object]:
        begun.append((status, headers))
        return _no_write

    parts = _call(app, environ, cast("StartResponse", start_response))
    try:
        _write(handler, begun, parts)
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()


def _call(app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    try:
        return app(environ, start_response)
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001 - a caller gets an answer, the log the trace
        _log.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return []


def _no_write(_data: bytes) -> None:
    message = "write() of WSGI is not offered"
    raise NotImplementedError(message)


def _write(handler: BaseHTTPRequestHandler, begun: list[_Exchange], parts: Iterable[bytes]) -> None:
    found = iter(parts)
    first = next(found, b"")  # a generator has called start_response only now
    status, headers = begun[-1]
    code, _, reason = status.partition(" ")
    bodiless = handler.command == "HEAD" or int(code) in _NO_BODY
    chunked = not bodiless and "content-length" not in {name.lower() for name, _value in headers}
    _write_head(handler, int(code), reason, [*headers, ("Transfer-Encoding", "chunked")] if chunked else headers)
    if chunked:
        _write_chunks(handler, first, found)
    elif not bodiless:
        for part in (first, *found):
            handler.wfile.write(part)
    handler.wfile.flush()


def _write_head(handler: BaseHTTPRequestHandler, code: int, reason: str, headers: list[tuple[str, str]]) -> None:
    given = {name.lower(): value for name, value in headers}
    handler.send_response_only(code, reason)
    handler.send_header("Server", given.get("server", handler.version_string()))
    handler.send_header("Date", handler.date_time_string())
    for name, value in headers:
        if name.lower() not in {"connection", "date", "server"}:
            handler.send_header(name, value)
    handler.end_headers()


def _write_chunks(handler: BaseHTTPRequestHandler, first: bytes, rest: Iterable[bytes]) -> None:
    for part in itertools.chain((first,), rest):
        _write_chunk(handler, part)
    handler.wfile.write(b"0\r\n\r\n")


def _write_chunk(handler: BaseHTTPRequestHandler, part: bytes) -> None:
    if part:
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        handler.wfile.flush()
