"""A small hub for a fleet: files over HTTP, ``python -m modeldeploy.edge.hub --directory D``.

It answers GET (whole, by ranges, or 304 when nothing changed), HEAD, PUT, DELETE and ``GET /?list=PREFIX``. It is trusted with nothing:
what devices take from it is signed. With ``--device-token-file`` and ``--token-file`` devices may read everything and write reports alone,
and whoever holds the other token may do everything. It listens on loopback unless it is told otherwise, and then it needs both tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import logging
import os
import signal
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import orjson

from modeldeploy.edge.layout import REPORTS
from modeldeploy.edge.stores import DirectoryStore
from modeldeploy.errors import ConfigurationError, ModelDeployError
from modeldeploy.packaging.manifest import check_path

MAX_REPORT = 64 * 1024
_MAX_FILE = 8 * 1024**3
_BLOCK = 1 << 18
_IDLE_S = 60
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_log = logging.getLogger("modeldeploy.edge.hub")


class Hub:
    """The server; ``port`` is the one that the system chose when 0 was asked for."""

    def __init__(
        self, directory: Path, *, host: str = "127.0.0.1", port: int = 0, token: str = "", device_token: str = ""
    ) -> None:
        if host not in _LOOPBACK and not (token and device_token):
            message = f"address {host!r} can be reached from other machines, and there are no tokens"
            raise ConfigurationError(message, hint="give --token-file and --device-token-file")
        if token and token == device_token:
            message = "the token of the devices is that of who publishes"
            raise ConfigurationError(message, hint="make two: a device must not be able to replace what the fleet runs")
        self.store = DirectoryStore(directory)
        self.store.root.mkdir(parents=True, exist_ok=True)
        handler = type("Handler", (_Handler,), {"hub": self})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            message = f"cannot serve on {host!r}, port {port}: {error}"
            raise ConfigurationError(message, hint="end what uses the port, or pass another with --port") from error
        self.host, self.port = host, int(self._server.server_address[1])
        self._tokens = token, device_token
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Give the address for ``open_store``."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> Self:
        """Serve in a thread until ``close``."""
        self._thread = threading.Thread(target=self.serve, name="hub", daemon=True)
        self._thread.start()
        return self

    def serve(self) -> None:
        """Serve until ``close`` is called."""
        self._server.serve_forever(0.05)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.close()

    def judge(self, method: str, path: str, shown: str) -> HTTPStatus | None:
        """Say with which status a request is refused; None when it may go on."""
        token, device = self._tokens
        if not (token or device) or _same(shown, token):
            return None
        if not _same(shown, device):
            return HTTPStatus.UNAUTHORIZED
        may = method in {"GET", "HEAD"} or (method == "PUT" and path.startswith(REPORTS))
        return None if may else HTTPStatus.FORBIDDEN


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    server_version = "modeldeploy-hub"
    sys_version = ""
    # Answers are written in two pieces, which would wait for each other: some 40 ms each time.
    disable_nagle_algorithm = True
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer with a document, a part of it, or a list."""
        self._act(self._get)

    def do_HEAD(self) -> None:
        """Answer with what is said of a document."""
        self._act(self._get)

    def do_PUT(self) -> None:
        """Write a document."""
        self._act(self._put)

    def do_DELETE(self) -> None:
        """Remove a document."""
        self._act(self._delete)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log where this library logs."""
        _log.debug(format, *args)

    def _act(self, act: Any) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path).lstrip("/")
        shown = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        refused = self.hub.judge(self.command, path, shown)
        if refused is not None:
            self._refuse(refused)
            return
        try:
            if self.command == "GET" and not path:
                self._list(url.query)
            else:
                act(check_path(path))
        except ModelDeployError as error:
            _log.info("%s %s: %s", self.command, path[:200], error)
            self._refuse(HTTPStatus.BAD_REQUEST)
        except OSError as error:
            _log.warning("%s %s: %s", self.command, path[:200], error)
            self.close_connection = True

    def _list(self, query: str) -> None:
        prefix = urllib.parse.parse_qs(query).get("list", [""])[0]
        self._answer(HTTPStatus.OK, orjson.dumps(list(self.hub.store.list(prefix))))

    def _get(self, path: str) -> None:
        try:
            stream = (self.hub.store.root / path).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with stream:
            facts = os.fstat(stream.fileno())
            etag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}-{facts.st_ino:x}"'
            headers = {"etag": etag, "last-modified": formatdate(facts.st_mtime, usegmt=True), "accept-ranges": "bytes"}
            if self.headers.get("if-none-match") == etag:
                self._head(HTTPStatus.NOT_MODIFIED, headers)
                return
            begin = _begin(self.headers.get("range", ""))
            if begin >= facts.st_size > 0:
                self._answer(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", {"content-range": f"bytes */{facts.st_size}"}
                )
                return
            headers["content-length"] = str(facts.st_size - begin)
            if begin:
                headers["content-range"] = f"bytes {begin}-{facts.st_size - 1}/{facts.st_size}"
            self._head(HTTPStatus.PARTIAL_CONTENT if begin else HTTPStatus.OK, headers)
            if self.command == "GET":
                stream.seek(begin)
                while block := stream.read(_BLOCK):
                    self.wfile.write(block)

    def _put(self, path: str) -> None:
        length = self.headers.get("content-length", "")
        most = MAX_REPORT if path.startswith(REPORTS) else _MAX_FILE
        if not length.isdecimal() or int(length) > most:
            self._refuse(HTTPStatus.LENGTH_REQUIRED if not length.isdecimal() else HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        with tempfile.NamedTemporaryFile(dir=self.hub.store.root, prefix=".put-") as spool:
            left = int(length)
            while left and (block := self.rfile.read(min(_BLOCK, left))):
                spool.write(block)
                left -= len(block)
            if left:
                self.close_connection = True
                return
            spool.flush()
            self.hub.store.put(path, Path(spool.name))
        self._answer(HTTPStatus.NO_CONTENT, b"")

    def _delete(self, path: str) -> None:
        self.hub.store.delete(path)
        self._answer(HTTPStatus.NO_CONTENT, b"")

    def _refuse(self, status: HTTPStatus) -> None:
        # A body that was not read would be taken for the next request.
        self.close_connection = self.command == "PUT"
        headers = {"www-authenticate": 'Bearer realm="modeldeploy"'} if status is HTTPStatus.UNAUTHORIZED else {}
        self._answer(status, orjson.dumps({"error": status.phrase}), headers)

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        length = {} if status is HTTPStatus.NO_CONTENT else {"content-length": str(len(body))}
        self._head(status, {**length, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()


def _begin(text: str) -> int:
    """Read the one kind of range that resumes a download."""
    number = text.removeprefix("bytes=").removesuffix("-")
    return int(number) if number.isdecimal() and text == f"bytes={number}-" else 0


def _same(shown: str, token: str) -> bool:
    return bool(token) and hmac.compare_digest(shown.encode(), token.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; one line of JSON on standard output says where."""
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.edge.hub", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token-file", type=Path, help="holds the token of who publishes")
    parser.add_argument("--device-token-file", type=Path, help="holds the token of the devices")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    tokens = [_token(path) for path in (asked.token_file, asked.device_token_file)]
    try:
        hub = Hub(asked.directory, host=asked.host, port=asked.port, token=tokens[0], device_token=tokens[1])
    except ModelDeployError as error:
        _log.error("%s", error)
        return 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    with hub, contextlib.suppress(KeyboardInterrupt):
        line = {"ready": True, "host": hub.host, "port": hub.port, "pid": os.getpid()}
        sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
        sys.stdout.flush()
        ended.wait()
    return 0


def _token(path: Path | None) -> str:
    return path.read_text(encoding="ascii").strip() if path is not None else ""


if __name__ == "__main__":
    sys.exit(main())
