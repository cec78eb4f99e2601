"""Fetches a bundle from Cloud Storage with nothing but the standard library, for containers that are told a ``gs://`` URI.

Vertex AI names a copy of the model's files by ``AIP_STORAGE_URI`` and leaves it to the container to fetch them. The token is that of the
service account that the container runs as, which the metadata server of the machine gives; nothing else is looked for. Where
``STORAGE_EMULATOR_HOST`` names another address, as Google's own clients understand it, that address is asked, and without a token.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from modeldeploy.errors import ConfigurationError

SCHEME = "gs://"
_PUBLIC = "https://storage.googleapis.com"
_EMULATOR = "STORAGE_EMULATOR_HOST"
_TOKEN = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105
_TIMEOUT_S = 60.0
_ATTEMPTS = 4
_PAUSE_S = 0.5
_CHUNK = 1024 * 1024
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_HINT = "the service account of the container must be able to read the bucket of the model's files"


def fetch(uri: str, into: Path, environ: Mapping[str, str]) -> Path:
    """Copy all that lies below a ``gs://`` URI into a directory, and give that; reading again is safe.

    ConfigurationError when there is nothing, or it cannot be read.
    """
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    prefix = f"{name.rstrip('/')}/" if name else ""
    source = _Source(environ)
    count = 0
    for each in source.names(bucket, prefix):
        source.copy(bucket, each, _target(into, each.removeprefix(prefix), uri))
        count += 1
    if not count:
        message = f"there is nothing at {uri}"
        raise ConfigurationError(message, hint="upload the bundle there, and register the model again")
    return into


def _target(into: Path, name: str, uri: str) -> Path:
    """Say where an object goes; a name that leads out of the directory is refused."""
    target = (into / name).resolve()
    if not target.is_relative_to(into.resolve()):
        message = f"{uri} holds {name!r}, which leads out of its directory"
        raise ConfigurationError(message, hint="upload the bundle again as it was packaged")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


class _Source:
    """Cloud Storage, or what stands for it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        other = environ.get(_EMULATOR, "")
        self._url = (other if "://" in other else f"http://{other}").rstrip("/") if other else _PUBLIC
        # A proxy of the environment is right for the service, and wrong for an address of this machine.
        handlers = [urllib.request.ProxyHandler({})] if other else []
        self._opener = urllib.request.build_opener(*handlers)
        self._headers = {} if other else {"Authorization": f"Bearer {_token()}"}

    def names(self, bucket: str, prefix: str) -> Iterator[str]:
        """Give the names of all objects below a prefix; folders that the console made are none."""
        token = ""
        while True:
            query = {"prefix": prefix, "fields": "items(name),nextPageToken", **({"pageToken": token} if token else {})}
            found = json.loads(self._read(f"/storage/v1/b/{quote(bucket, safe='')}/o?{urlencode(query)}"))
            yield from (each["name"] for each in found.get("items", []) if not each["name"].endswith("/"))
            token = found.get("nextPageToken", "")
            if not token:
                return

    def copy(self, bucket: str, name: str, target: Path) -> None:
        """Copy one object to a file."""
        self._read(f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}?alt=media", target)

    def _read(self, path: str, target: Path | None = None) -> bytes:
        """Read an answer whole, or into a file; again when the service says that it may be well next time."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(path, target)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _AGAIN or attempt + 1 == _ATTEMPTS:
                        message = f"Cloud Storage answered {error.code} for {path.partition('?')[0]}"
                        raise ConfigurationError(message, hint=_HINT) from error
            except OSError as error:
                if attempt + 1 == _ATTEMPTS:
                    message = f"Cloud Storage cannot be reached at {self._url}: {error}"
                    raise ConfigurationError(message, hint="check the network of the container") from error
            time.sleep(_PAUSE_S * 2**attempt)
        return b""

    def _ask(self, path: str, target: Path | None) -> bytes:
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310 - one of two addresses
        with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
            if target is None:
                return bytes(answer.read())
            with target.open("wb") as out:
                while data := answer.read(_CHUNK):
                    out.write(data)
        return b""


def _token() -> str:
    """Ask the metadata server for the token of the container's service account."""
    request = urllib.request.Request(_TOKEN, headers={"Metadata-Flavor": "Google"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
    except OSError as error:
        message = f"no token for Cloud Storage: the metadata server cannot be asked ({error})"
        raise ConfigurationError(message, hint="mount the bundle and pass --bundle where there is none") from error
    return str(found["access_token"])
