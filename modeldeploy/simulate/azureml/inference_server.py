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
import types
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

_OK, _BAD, _NOT_ALLOWED, _NOT_FOUND, _FAILED = 200, 400, 405, 404, 500
_RAW = "_takes_the_request"
_JSON = "application/json"
_UNEXPECTED = "An unexpected error occurred in scoring script. Check the logs for more info."


class AMLRequest:
    """What an entry script whose ``run`` is marked by ``rawhttp`` gets; the provider's own is Flask's request."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.full_path = target
        self.path, _, query = target.partition("?")
        self.args = dict(parse_qsl(query))
        self.headers = headers
        self.data = body

    def get_data(self, cache: bool = True, as_text: bool = False) -> bytes | str:  # noqa: FBT001, FBT002 - as Flask has it
        """Give the body."""
        del cache
        return self.data.decode("utf-8") if as_text else self.data

    def get_json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.data)


class AMLResponse:
    """What an entry script answers with a status and headers of its own."""

    def __init__(
        self,
        message: Any,
        status_code: int,
        json_str: bool = False,  # noqa: FBT001, FBT002 - as the provider has it
        response_headers: Mapping[str, str] | None = None,
        run_function_failed: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> None:
        plain = isinstance(message, (str, bytes)) and not json_str
        text = message if plain else json.dumps(message)
        self.body: bytes = text.encode() if isinstance(text, str) else text
        self.status_code = status_code
        self.headers = dict(response_headers or {})
        self.failed = run_function_failed or status_code >= _FAILED


def rawhttp(run: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``run`` that takes the request as it came."""
    setattr(run, _RAW, True)
    return run


def install() -> None:
    """Let an entry script import what it would find in the provider's image, under both of the names that are in use."""
    for package in ("azureml.contrib.services", "azureml_inference_server_http.api"):
        parts = package.split(".")
        for count in range(1, len(parts) + 1):
            module = sys.modules.setdefault(".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
            module.__path__ = []
        request, response = types.ModuleType(f"{package}.aml_request"), types.ModuleType(f"{package}.aml_response")
        vars(request).update(AMLRequest=AMLRequest, rawhttp=rawhttp)
        vars(response).update(AMLResponse=AMLResponse)
        sys.modules.update({request.__name__: request, response.__name__: response})


class Script:
    """The entry script after its ``init``."""

    def __init__(self, root: str, entry: str) -> None:
        path = Path(root, entry)
        sys.path[:0] = [str(path.parent), root]
        spec = importlib.util.spec_from_file_location("entry_module", path)
        if spec is None or spec.loader is None:
            message = f"there is no entry script at {path}"
            raise FileNotFoundError(message)
        module = importlib.util.module_from_spec(spec)
        sys.modules["entry_module"] = module
        spec.loader.exec_module(module)
        getattr(module, "init", _nothing)()
        self._run: Callable[..., Any] = module.run
        self._raw = bool(getattr(module.run, _RAW, False))
        parameters = inspect.signature(module.run).parameters
        self._headers = "request_headers" in parameters
        self._argument = next(name for name in parameters if name != "request_headers")
        self._slots = threading.Semaphore(int(os.environ.get("WORKER_COUNT", "1")))

    def argument(self, request: AMLRequest) -> Any:
        """Give what ``run`` takes: the body as text, or the request as it came; UnicodeDecodeError for a body that is no text."""
        return request if self._raw else request.get_data(as_text=True)

    def run(self, data: Any, request: AMLRequest) -> Any:
        """Call ``run`` as soon as a worker is free."""
        more = {"request_headers": dict(request.headers.items())} if self._headers else {}
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
        request = AMLRequest(self.command, self.path, cast("Mapping[str, str]", self.headers), body)
        try:
            data = self.script.argument(request)
        except UnicodeDecodeError:
            self._answer(_BAD, b"Input request does not contain valid UTF-8 text.", "text/plain")
            return
        begun = time.perf_counter()
        result = _called(self.script, data, request)
        took = f"{(time.perf_counter() - begun) * 1000:.3f}"
        more = {"x-ms-run-fn-exec-ms": took, "x-ms-run-function-failed": str(result.failed)}
        self._answer(result.status_code, result.body, _JSON, {**result.headers, **more})

    def _answer(self, status: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        asked = self.headers.get("x-request-id") or self.headers.get("x-ms-request-id")
        told = {name.lower(): value for name, value in (more or {}).items()}
        told = {
            "content-type": kind,
            "x-request-id": asked or str(uuid.uuid4()),
            **told,
            "content-length": str(len(body)),
        }
        client = self.headers.get("x-ms-client-request-id")
        for name, value in {**told, **({"x-ms-client-request-id": client} if client else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _called(script: Script, data: Any, request: AMLRequest) -> AMLResponse:
    """Call the script, and make an answer of whatever comes of it."""
    try:
        result = script.run(data, request)
        if isinstance(result, AMLResponse):
            return result
        return AMLResponse({} if result is None else result, _OK, json_str=True)
    except Exception:  # noqa: BLE001 - whatever the model's code raises is an answer
        traceback.print_exc(file=sys.stdout)
        return AMLResponse({"message": _UNEXPECTED}, _FAILED)


def main() -> int:
    """Load the entry script and serve."""
    install()
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
