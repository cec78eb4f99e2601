"""What runs in the provider's inference images, as far as a model's own code can tell.

It calls ``init`` and ``run`` of the entry script by the rules of the public ``azureml-inference-server-http`` (1.5.1): ``POST /score`` hands the body
to ``run`` as text, ``GET /`` tells that the process is well. Run by its path, not as a module: in an image there is no modeldeploy but the one that was uploaded.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_OK, _BAD, _NOT_ALLOWED, _NOT_FOUND, _FAILED = 200, 400, 405, 404, 500
_JSON = "application/json"
_RAW_HTTP = Path(__file__).with_name("raw_http.py")
_UNEXPECTED = "An unexpected error occurred in scoring script. Check the logs for more info."


def _loaded(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"there is no entry script at {path}"
        raise FileNotFoundError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Script:
    """The entry script after its ``init``."""

    def __init__(self, root: str, entry: str) -> None:
        path = Path(root, entry)
        sys.path[:0] = [str(path.parent), root]
        raw_http = _loaded("azureml_raw_http", _RAW_HTTP)
        raw_http.install()
        self.request = raw_http.AMLRequest
        module = _loaded("entry_module", path)
        getattr(module, "init", _nothing)()
        self._run: Callable[..., Any] = module.run
        self.raw = bool(getattr(module.run, raw_http.RAW, False))
        parameters = inspect.signature(module.run).parameters
        self._headers = "request_headers" in parameters
        self._argument = next(name for name in parameters if name != "request_headers")
        self._slots = threading.Semaphore(int(os.environ.get("WORKER_COUNT", "1")))

    def run(self, data: object, headers: Mapping[str, str]) -> Any:
        """Call ``run`` as soon as a worker is free."""
        more = {"request_headers": dict(headers)} if self._headers else {}
        with self._slots:
            return self._run(**{self._argument: data, **more})


def _nothing() -> None:
    """Stand for an ``init`` that there is not."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "azmlinfsrv-rehearsal"
    disable_nagle_algorithm = True
    wbufsize = -1
    script: Script

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Keep silent about requests."""

    def do_GET(self) -> None:
        """Tell that the process is well, or score what the query says."""
        if self.path == "/":
            self._answer(_OK, b"Healthy", "text/plain")
        elif self.path.partition("?")[0] == "/score":
            self._score(b"")
        else:
            self._answer(_NOT_FOUND, b"Not Found", "text/plain")

    def do_POST(self) -> None:
        """Score."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.partition("?")[0] == "/score":
            self._score(body)
        else:
            self._answer(_NOT_FOUND, b"Not Found", "text/plain")

    def do_PUT(self) -> None:
        """Refuse."""
        self._answer(_NOT_ALLOWED, b"Method Not Allowed", "text/plain")

    def _score(self, body: bytes) -> None:
        try:
            # A script of the raw kind takes the request as it came, all others text.
            asked = self._raw(body) if self.script.raw else body.decode("utf-8")
        except UnicodeDecodeError:
            self._answer(_BAD, b"Input request does not contain valid UTF-8 text.", "text/plain")
            return
        begun = time.perf_counter()
        status, out, failed, more = _called(self.script, asked, dict(self.headers.items()))
        took = {
            "x-ms-run-fn-exec-ms": f"{(time.perf_counter() - begun) * 1000:.3f}",
            "x-ms-run-function-failed": str(failed),
        }
        lower = {name.lower(): value for name, value in more.items()}
        self._answer(status, out, lower.pop("content-type", _JSON), {**took, **lower})

    def _raw(self, body: bytes) -> Any:
        return self.script.request(self.command, self.headers, body)

    def _answer(self, status: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        asked = self.headers.get("x-request-id") or self.headers.get("x-ms-request-id")
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "x-request-id": asked or str(uuid.uuid4()),
            **(more or {}),
        }
        client = self.headers.get("x-ms-client-request-id")
        for name, value in {**headers, **({"x-ms-client-request-id": client} if client else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _called(script: Script, data: object, headers: Mapping[str, str]) -> tuple[int, bytes, bool, Mapping[str, str]]:
    try:
        result = script.run(data, headers)
        if hasattr(result, "failed"):
            return result.status, result.body, result.failed or result.status >= _FAILED, result.headers
        return _OK, json.dumps({} if result is None else result).encode(), False, {}
    except Exception:  # noqa: BLE001 - whatever the model's code raises is an answer
        traceback.print_exc(file=sys.stdout)
        return _FAILED, json.dumps({"message": _UNEXPECTED}).encode(), True, {}


def main() -> int:
    """Load the entry script and serve."""
    try:
        Handler.script = Script(os.environ["AML_APP_ROOT"], os.environ["AZUREML_ENTRY_SCRIPT"])
    except Exception:  # noqa: BLE001 - whatever the script raises ends the worker
        traceback.print_exc(file=sys.stdout)
        return 3
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
