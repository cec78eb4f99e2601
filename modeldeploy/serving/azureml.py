"""What Azure ML's inference server is given by the generated scoring script, over the same App as everywhere.

``init`` is called once in each worker process, ``run`` with each request as it came. A wrong request gets the status that our own server
gives it, and its answer the revision.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving import lines
from modeldeploy.serving.app import App
from modeldeploy.serving.boot import boot
from modeldeploy.serving.messages import Request

_MANIFEST = "manifest.json"
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
