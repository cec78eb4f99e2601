"""What runs in the provider's prebuilt framework images, as far as a model's own code can tell.

It calls ``model_fn``, ``input_fn``, ``predict_fn``, ``output_fn`` or ``transform_fn`` of ``code/inference.py`` by the rules of the two public
hosts: ``inference`` (``sagemaker-inference``, most images) and ``containers`` (``sagemaker-containers``, the scikit-learn images), which lets
no function choose the status of an error. Run by its path, not as a module: in an image there is no modeldeploy but the one in the archive.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import io
import json
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_JSON, _CSV, _NPY, _ANY = "application/json", "text/csv", "application/x-npy", "*/*"
_TEXT = frozenset({_JSON, _CSV})
_OK, _NOT_FOUND, _NOT_ACCEPTABLE, _UNSUPPORTED, _FAILED = 200, 404, 406, 415, 500
_CONTAINERS = "containers"
_OPT_ML = "/opt/ml"
_Result = tuple[int, bytes, str]


class BaseInferenceToolkitError(Exception):
    """The public toolkit's error with a status of its own; stands in ``sagemaker_inference.errors`` here."""

    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message
        self.phrase = phrase


class UnsupportedFormatError(Exception):
    """The public toolkit's error for a content type that it cannot read or write."""

    def __init__(self, content_type: str) -> None:
        super().__init__(f"Content type {content_type} is not supported by this framework.")


class Host:
    """The user's functions and the model that they loaded."""

    def __init__(self, family: str, environ: Mapping[str, str]) -> None:
        base = environ.get("SAGEMAKER_BASE_DIR", _OPT_ML)
        self.model_dir = f"{base}/model"
        self.family = family
        self.default_accept = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", _JSON)
        self._lock = threading.Lock()
        module = _user_module(family, environ, self.model_dir)
        self._transform = self._find_transform(module)
        self._model = _call(getattr(module, "model_fn", _no_model_fn), self.model_dir)
        self.parameters: Callable[[], Any] | None = getattr(module, "execution_parameters_fn", None)

    def _find_transform(self, module: object) -> Callable[..., Any]:
        names = ("input_fn", "predict_fn", "output_fn")
        whole = getattr(module, "transform_fn", None)
        if whole is not None and any(hasattr(module, name) for name in names):
            message = "Cannot use transform_fn implementation with input_fn, predict_fn, and/or output_fn"
            raise ValueError(message)
        defaults = (_default_input, _default_predict, _default_output)
        self._input, self._predict, self._output = (
            getattr(module, name, default) for name, default in zip(names, defaults, strict=True)
        )
        return whole or self._in_three_steps

    def respond(self, body: bytes, headers: Mapping[str, str]) -> _Result:
        """Answer one request; one at a time, as a worker of these hosts does."""
        kind = headers.get("Content-Type") or _JSON
        accept = headers.get("Accept") or _ANY
        accept = self.default_accept if accept == _ANY else accept
        data: Any = body.decode("utf-8") if kind in _TEXT else body
        try:
            with self._lock:
                return _written(_call(self._transform, self._model, data, kind, accept), accept)
        except Exception as error:  # noqa: BLE001 - whatever the model's code raises is an answer
            traceback.print_exc(file=sys.stdout)
            return self._failed(error)

    def _in_three_steps(self, model: object, data: object, kind: str, accept: str) -> Any:
        prepared = _call(self._input, data, kind)
        return _call(self._output, _call(self._predict, prepared, model), accept)

    def _failed(self, error: Exception) -> _Result:
        if self.family == _CONTAINERS:
            return _containers_failure(error)
        status = error.status_code if isinstance(error, BaseInferenceToolkitError) else _FAILED
        said = error.message if isinstance(error, BaseInferenceToolkitError) else str(error)
        return status, f"{said}\n{traceback.format_exc()}".encode(), _JSON


def _containers_failure(error: Exception) -> _Result:
    if isinstance(error, UnsupportedFormatError):
        return _UNSUPPORTED, json.dumps({"error": type(error).__name__, "error-message": str(error)}).encode(), _JSON
    return _FAILED, b"<h1>Internal Server Error</h1>", "text/html"


def _written(result: Any, accept: str) -> _Result:
    """Read what a function gave back: text or bytes, a pair with the content type, or a response object."""
    if hasattr(result, "get_data") and hasattr(result, "status_code"):
        return int(result.status_code), bytes(result.get_data()), str(result.mimetype or accept)
    body, kind = result if isinstance(result, tuple) else (result, accept)
    return _OK, body.encode() if isinstance(body, str) else bytes(body), kind


def _call(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function of the user's, which may take a context as its last argument."""
    takes = len(inspect.signature(function).parameters)
    if takes == len(arguments) + 1:
        return function(*arguments, None)
    if takes != len(arguments):
        message = f"{function.__name__} takes {takes} arguments but {len(arguments)} were given."
        raise TypeError(message)
    return function(*arguments)


def _user_module(family: str, environ: Mapping[str, str], model_dir: str) -> object:
    program = environ.get("SAGEMAKER_PROGRAM")
    if program is None and family == _CONTAINERS:
        message = "SAGEMAKER_PROGRAM is not set: this image does not guess the module"
        raise ImportError(message)
    _set_path(environ, model_dir)
    name = (program or "inference.py").removesuffix(".py")
    if family == _CONTAINERS or importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    return object()


def _set_path(environ: Mapping[str, str], model_dir: str) -> None:
    code = environ.get("SAGEMAKER_SUBMIT_DIRECTORY", f"{_OPT_ML}/model/code")
    where = model_dir + code.removeprefix(f"{_OPT_ML}/model") if code.startswith(f"{_OPT_ML}/model") else code
    sys.path.insert(0, where)
    if not (Path(where) / "modeldeploy").is_dir():
        # In an image there is none; the one of this environment would hide that.
        sys.modules["modeldeploy"] = None  # type: ignore[assignment]  # Python's own way to forbid an import
    errors = types.ModuleType("sagemaker_inference.errors")
    errors.BaseInferenceToolkitError = BaseInferenceToolkitError  # type: ignore[attr-defined]
    errors.UnsupportedFormatError = UnsupportedFormatError  # type: ignore[attr-defined]
    sys.modules["sagemaker_inference"] = types.ModuleType("sagemaker_inference")
    sys.modules["sagemaker_inference.errors"] = errors


def _no_model_fn(_model_dir: str) -> Any:
    message = "Please provide a model_fn implementation."
    raise NotImplementedError(message)


def _default_input(data: Any, kind: str) -> Any:
    import numpy as np

    if kind == _JSON:
        return np.array(json.loads(data))
    if kind == _CSV:
        return np.genfromtxt(io.StringIO(data), dtype="float32", delimiter=",")
    if kind == _NPY:
        return np.load(io.BytesIO(data), allow_pickle=False)
    raise UnsupportedFormatError(kind)


def _default_predict(data: Any, model: Any) -> Any:
    return model.predict(data)


def _default_output(prediction: Any, accept: str) -> Any:
    import numpy as np

    array = np.asarray(prediction)
    if accept == _JSON:
        return json.dumps(array.tolist()), accept
    buffer = io.BytesIO()
    if accept == _CSV:
        np.savetxt(buffer, array, delimiter=",", fmt="%s")
    elif accept == _NPY:
        np.save(buffer, array, allow_pickle=False)
    else:
        raise UnsupportedFormatError(accept)
    return buffer.getvalue(), accept


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    host: Host | None = None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Keep silent about requests, as the hosts' own servers do about those that go well."""

    def do_GET(self) -> None:
        if self.path == "/execution-parameters" and self.host is not None and self.host.parameters is not None:
            self._send(_written(self.host.parameters(), _JSON))
        elif self.path == "/ping":
            self._send((_OK if self.host is not None else _FAILED, b"", _JSON))
        else:
            self._send((_NOT_FOUND, b"", _JSON))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/invocations":
            self._send((_NOT_FOUND, b"", _JSON))
        elif self.host is None:
            self._send((_FAILED, b"the model was not loaded", _JSON))
        else:
            self._send(self.host.respond(body, dict(self.headers.items())))

    def _send(self, result: _Result) -> None:
        status, body, kind = result
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model and serve until SIGTERM; a model that does not load leaves a server that fails its health check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=["inference", _CONTAINERS], default="inference")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    try:
        _Handler.host = Host(asked.family, os.environ)
    except Exception:  # noqa: BLE001 - likewise
        traceback.print_exc(file=sys.stdout)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        sys.stdout.write(json.dumps({"port": server.server_port}) + "\n")
        sys.stdout.flush()
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
