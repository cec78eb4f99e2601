"""How a container of a public Python image on Vertex AI becomes the model server: this file's own text is what it is started with (``python -c``).

So it needs nothing but Python and pip. What lies below ``AIP_STORAGE_URI``::

    bundle/              the model, which the model server fetches itself
    modeldeploy.zip      the part of this library that loads and serves it, as source
    requirements.txt     the versions that the model was packaged with

A requirement that is there already is not installed again, so an image that holds everything starts without an index of packages.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

BUNDLE, LIBRARY, REQUIREMENTS = "bundle", "modeldeploy.zip", "requirements.txt"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a container, whose platform connects from outside and checks who asks
_EMULATOR = "STORAGE_EMULATOR_HOST"
_STORE = "https://storage.googleapis.com"
_TOKENS = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
_TIMEOUT_S = 120.0


def _read(name: str) -> bytes:
    """Read a file below ``AIP_STORAGE_URI``, as the container's own service account."""
    bucket, _, folder = os.environ["AIP_STORAGE_URI"].removeprefix("gs://").partition("/")
    path = urllib.parse.quote(f"{folder.rstrip('/')}/{name}", safe="")
    there = f"storage/v1/b/{urllib.parse.quote(bucket, safe='')}/o/{path}?alt=media"
    # The emulator and the metadata server are on this machine, where a proxy is of no use.
    direct = urllib.request.ProxyHandler({})
    if os.environ.get(_EMULATOR):
        return _get(f"{os.environ[_EMULATOR].rstrip('/')}/{there}", {}, direct)
    token = json.loads(_get(_TOKENS, {"Metadata-Flavor": "Google"}, direct))["access_token"]
    return _get(f"{_STORE}/{there}", {"Authorization": f"Bearer {token}"})


def _get(url: str, headers: dict[str, str], *handlers: Any) -> bytes:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the addresses above, or the emulator's
    with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
        data: bytes = answer.read()
    return data


def install(requirements: Iterable[str]) -> None:
    """Install what is not there in a version that is asked for."""
    missing = [each for each in requirements if each and not is_there(each)]
    if missing:
        options = ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *missing], check=True)


def is_there(requirement: str) -> bool:
    """Whether a requirement is met, or is none on this platform."""
    try:
        kind = importlib.import_module("packaging.requirements").Requirement
    except ImportError:
        # pip brings its own copy.
        kind = importlib.import_module("pip._vendor.packaging.requirements").Requirement
    asked = kind(requirement)
    if asked.marker is not None and not asked.marker.evaluate():
        return True
    try:
        found = metadata.version(asked.name)
    except metadata.PackageNotFoundError:
        return False
    return not asked.extras and bool(asked.specifier.contains(found, prereleases=True))


def main(arguments: Sequence[str]) -> None:
    """Fetch the library, install what is missing, and become the model server; the platform starts the container anew when any of it fails."""
    install(_read(REQUIREMENTS).decode().splitlines())
    library = Path(tempfile.mkdtemp(prefix="modeldeploy-")) / LIBRARY
    library.write_bytes(_read(LIBRARY))
    environ = {**os.environ, "PYTHONPATH": str(library)}
    host = [] if "--host" in arguments else ["--host", _EVERYWHERE]
    revision = os.environ.get("MODELDEPLOY_REVISION", "")
    told = ["--revision", revision] if revision else []
    command = [sys.executable, "-m", "modeldeploy.serving", "--auth", "none", *host, *told, *arguments]
    os.execve(sys.executable, command, environ)  # noqa: S606 - no shell


if __name__ == "__main__":
    main(sys.argv[1:])
