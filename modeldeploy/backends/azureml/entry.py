"""What a deployment runs: the generated scoring script with this library beside it, and the environment that it runs in.

::

    score.py                   ``init`` and ``run`` as the provider's inference server, or its batch driver, calls them
    modeldeploy.zip            the part of this library that loads and serves a bundle, as source

The library is one file, because the SDK sends each file by requests of its own. The environment is a public base image and a conda file with the versions that the model was packaged with, which the service builds; no
Docker is needed here. A container image of one's own is served by its own model server at its own routes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.backends.azureml import names
from modeldeploy.backends.cloud import library
from modeldeploy.packaging.bundle import Bundle

SCRIPT = "score.py"
_LIBRARY = "modeldeploy.zip"
BASE_IMAGE = "mcr.microsoft.com/azureml/minimal-ubuntu22.04-py39-cpu-inference:latest"
"""Built on for models that need no accelerator; the conda file brings Python and everything else."""
_SERVER = "azureml-inference-server-http>=1.4"
_PORT = 8080
_SCORE = '''\
"""The functions that the provider's inference server calls; the work is done by the modeldeploy.zip beside this file."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "modeldeploy.zip"))

from azureml.contrib.services.aml_request import rawhttp  # noqa: E402
from azureml.contrib.services.aml_response import AMLResponse  # noqa: E402

from modeldeploy.serving import azureml as served  # noqa: E402


def init():
    served.init()


@rawhttp
def run(request):
    status, headers, body = served.run(request.headers, request.get_data(False))
    return AMLResponse(body, status, response_headers=headers)
'''


_BATCH = '''\
"""The functions that the provider's batch driver calls; the work is done by the modeldeploy.zip beside this file."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "modeldeploy.zip"))

from modeldeploy.serving import azureml as served  # noqa: E402


def init():
    served.init()


def run(mini_batch):
    return served.score(mini_batch, os.environ["AZUREML_BI_OUTPUT_PATH"])
'''


@attrs.frozen
class Environment:
    """What an environment is made of; its version follows from it."""

    image: str
    conda: Mapping[str, Any] | None = None
    routes: Mapping[str, Any] | None = None
    """Where a container of one's own answers; None for the generated script."""

    @property
    def version(self) -> str:
        """The version under which it is registered."""
        return names.environment_version([self.image, self.conda, self.routes])

    @property
    def reference(self) -> str:
        """How a deployment refers to it."""
        return names.reference(names.ENVIRONMENT, self.version)


def generated(bundle: Bundle, base_image: str = "") -> Environment:
    """Make the environment of the generated script: Python and the libraries in the versions that the model was packaged with."""
    python = ".".join(bundle.manifest.python.split(".")[:2])
    pip = [*library.needed(bundle), _SERVER]
    conda = {
        "name": "modeldeploy",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pip}],
    }
    return Environment(base_image or BASE_IMAGE, conda)


def contained(image: str) -> Environment:
    """Make the environment of a container that runs this library's model server on port 8080."""
    routes = {
        "liveness_route": {"port": _PORT, "path": "/"},
        "readiness_route": {"port": _PORT, "path": "/"},
        "scoring_route": {"port": _PORT, "path": "/score"},
    }
    return Environment(image, None, routes)


@contextlib.contextmanager
def folder(*, batch: bool = False) -> Iterator[Path]:
    """Lay a script and the library out in a directory, for the time that it takes to send them."""
    with tempfile.TemporaryDirectory(prefix="modeldeploy-code-") as made:
        place = Path(made) / "code"
        place.mkdir()
        (place / SCRIPT).write_text(_BATCH if batch else _SCORE, encoding="utf-8")
        (place / _LIBRARY).write_bytes(_zipped())
        yield place


@functools.cache
def _zipped() -> bytes:
    """Pack the library, the same bytes each time: the SDK knows what it has sent by its content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in library.sources().items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def variables(bundle: Bundle, trust: tuple[str, ...]) -> dict[str, str]:
    """Give the environment variables that the bundle needs; IntegrityError for pickled content that nobody vouched for."""
    trusted = library.refuse_untrusted(bundle, trust)
    return {names.ENV_TRUST: bundle.digest} if trusted else {}
