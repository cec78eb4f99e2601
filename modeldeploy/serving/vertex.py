"""How a container on Vertex AI comes by its model, and starts to serve it: what ``AIP_STORAGE_URI`` names is fetched, and what is missing installed.

The text of this file is also what a container of a public image is started with (``python -c``), so it needs nothing but Python and pip.
What lies below ``AIP_STORAGE_URI``::

    bundle/              the model
    modeldeploy.zip      the part of this library that loads and serves it, as source
    requirements.txt     the versions that the model was packaged with

A requirement that is there already is not installed again, so an image that holds everything starts without the network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BUNDLE, LIBRARY, REQUIREMENTS = "bundle", "modeldeploy.zip", "requirements.txt"
HOST = "MODELDEPLOY_HOST"
"""Variable with the address to listen on; the platform connects from outside of the container, so it is all of them unless this is set."""
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a container, whose platform checks who asks
_EMULATOR = "STORAGE_EMULATOR_HOST"
_STORE = "https://storage.googleapis.com"
_TOKENS = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
_TIMEOUT_S = 120.0


def fetch(uri: str, place: Path) -> None:
    """Copy all objects below a ``gs://`` address into a directory, as the container's own service account."""
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    folder = prefix.rstrip("/") + "/"
    for name in _names(bucket, folder):
        path = (place / name.removeprefix(folder)).resolve()
        if not path.is_relative_to(place.resolve()):
            message = f"the object {name!r} would be written outside of its directory"
            raise ValueError(message)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _get(f"{_objects(bucket)}/{_quoted(name)}?alt=media") as answer, path.open("wb") as out:
            shutil.copyfileobj(answer, out)


def _names(bucket: str, folder: str) -> Iterator[str]:
    page = ""
    while True:
        query = urllib.parse.urlencode({"prefix": folder, "pageToken": page} if page else {"prefix": folder})
        with _get(f"{_objects(bucket)}?{query}") as answer:
            found = json.load(answer)
        yield from (each["name"] for each in found.get("items", ()) if not each["name"].endswith("/"))
        page = found.get("nextPageToken", "")
        if not page:
            return


def _objects(bucket: str) -> str:
    base = os.environ.get(_EMULATOR) or _STORE
    return f"{base}/storage/v1/b/{_quoted(bucket)}/o"


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _get(url: str) -> Any:
    if os.environ.get(_EMULATOR):
        # An emulator is on this machine: no proxy, and nobody to be.
        return _open(url, {}, urllib.request.ProxyHandler({}))
    # The metadata server is on this machine, too.
    with _open(_TOKENS, {"Metadata-Flavor": "Google"}, urllib.request.ProxyHandler({})) as answer:
        token = json.load(answer)["access_token"]
    return _open(url, {"Authorization": f"Bearer {token}"})


def _open(url: str, headers: dict[str, str], *handlers: Any) -> Any:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the two addresses above, or the emulator's
    return urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S)


def install(requirements: Iterable[str]) -> None:
    """Install what is not there in a version that is asked for."""
    missing = [each for each in requirements if each and not _is_there(each)]
    if missing:
        options = ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *missing], check=True)


def _is_there(requirement: str) -> bool:
    from importlib import metadata

    try:
        from packaging.requirements import Requirement
    except ImportError:
        # pip brings its own copy.
        import importlib

        Requirement = importlib.import_module("pip._vendor.packaging.requirements").Requirement  # type: ignore[misc]  # noqa: N806
    asked = Requirement(requirement)
    try:
        found = metadata.version(asked.name)
    except metadata.PackageNotFoundError:
        return asked.marker is not None and not asked.marker.evaluate()
    return not asked.extras and asked.specifier.contains(found, prereleases=True)


def main() -> None:
    """Fetch, install, and become the model server; the platform starts the container anew when any of it fails."""
    place = Path(tempfile.mkdtemp(prefix="modeldeploy-"))
    fetch(os.environ["AIP_STORAGE_URI"], place)
    install((place / REQUIREMENTS).read_text(encoding="utf-8").splitlines())
    environ = {**os.environ, "PYTHONPATH": str(place / LIBRARY)}
    host = os.environ.get(HOST) or _EVERYWHERE
    options = ["--bundle", str(place / BUNDLE), "--host", host, "--auth", "none", "--max-body-mb", "32"]
    revision = os.environ.get("MODELDEPLOY_REVISION", "")
    told = ["--revision", revision] if revision else []
    os.execve(sys.executable, [sys.executable, "-m", "modeldeploy.serving", *options, *told], environ)  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
