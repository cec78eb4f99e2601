"""What Azure ML's servers are given by the generated scoring scripts, over the same App as everywhere.

``init`` is called once in each worker process, ``run`` with each request as it came, ``score`` with the files of a mini-batch. A wrong request
gets the status that our own server gives it, and its answer the revision.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from modeldeploy.errors import ConfigurationError, PredictionError
from modeldeploy.serving import lines
from modeldeploy.serving.app import App
from modeldeploy.serving.boot import boot
from modeldeploy.serving.messages import Request
from modeldeploy.serving.payloads import LINES_TYPE

_MANIFEST = "manifest.json"
_GOOD = 200
_made: list[App] = []
_one_at_a_time = threading.Lock()
"""A worker of the inference server has one thread; a host with more must not predict twice at a time."""


def init(environ: Mapping[str, str] | None = None) -> None:
    """Load the bundle that the service mounted and prove it by its golden outputs."""
    environ = os.environ if environ is None else environ
    trust = environ.get("MODELDEPLOY_TRUST", "").replace(",", " ").split()
    place = bundle_in(Path(environ.get("AZUREML_MODEL_DIR", "")))
    app = boot(place, revision=environ.get("MODELDEPLOY_REVISION", ""), trust=trust, row_by_row=lines.wanted(environ))
    _made[:] = [app]


def bundle_in(place: Path) -> Path:
    """Find the bundle in the model's directory or one level below it: the service keeps the name of the folder that was sent."""
    found = [path.parent for path in (place / _MANIFEST, *sorted(place.glob(f"*/{_MANIFEST}"))) if path.is_file()]
    if not found:
        message = f"no bundle in AZUREML_MODEL_DIR {str(place)!r}"
        raise ConfigurationError(message, hint="register the directory of a bundle as the model")
    return found[0]


def run(headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Answer one request: status, headers, body."""
    (app,) = _made
    lower = {name.lower(): value for name, value in headers.items()}
    with _one_at_a_time:
        (answer,) = app.respond_many([Request("POST", "/score", headers=lower, body=body)])
    return answer.status, dict(answer.headers), bytes(answer.body)


def score(files: Sequence[str], output: str) -> list[str]:
    """Answer each file of JSON Lines by a file of as many lines; gives the names of those that were answered."""
    return [_scored(Path(each), Path(output)) for each in files]


def _scored(file: Path, output: Path) -> str:
    headers = {"content-type": LINES_TYPE, "accept": LINES_TYPE}
    status, _headers, body = run(headers, file.read_bytes())
    if status != _GOOD:
        message = f"{file.name} was answered {status}: {body[:200].decode('utf-8', 'replace')}"
        raise PredictionError(message, status=status)
    # Whole or not at all: what lies there under this name is believed.
    begun = output / f".{file.name}.tmp"
    begun.write_bytes(body)
    begun.rename(output / f"{file.name}.out")
    return file.name
