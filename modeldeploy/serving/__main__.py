"""The container entry: ``python -m modeldeploy.serving --bundle DIR``, the same program on every platform.

Without ``--bundle`` or ``--archive`` the model is looked for where the platform puts it: ``AIP_STORAGE_URI`` (Vertex AI, a directory or a
place in Cloud Storage, from which it is fetched), ``AZUREML_MODEL_DIR`` (Azure ML), ``/opt/ml/model`` (SageMaker).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from modeldeploy.errors import ConfigurationError, ModelDeployError
from modeldeploy.serving import arguments as access_arguments
from modeldeploy.serving.limits import MEBIBYTE, Limits

if TYPE_CHECKING:
    from modeldeploy.serving.app import App, Routes

SAGEMAKER_BASE = "/opt/ml"
_MANIFEST = "manifest.json"
_DEFAULT_PORT = 8080
_FAILED = 1
_log = logging.getLogger("modeldeploy.serving")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Serve until SIGTERM; 0 after a clean stop, 1 with the reason on standard error when the model cannot be served."""
    asked = _parser().parse_args(arguments)
    environ = os.environ if environ is None else environ
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        with tempfile.TemporaryDirectory(prefix="modeldeploy-") as scratch:
            return _serve(asked, environ, Path(scratch))
    except ModelDeployError as error:
        _log.error("%s", error)
        return _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.serving", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve"], help="SageMaker starts its containers with this word")
    parser.add_argument("--bundle", type=Path, help="a bundle's directory")
    parser.add_argument("--archive", type=Path, help="a bundle's .tar.gz")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 in a container whose platform connects from outside"
    )
    parser.add_argument("--port", type=int, help="0 for any free port; default AIP_HTTP_PORT, else 8080")
    parser.add_argument("--name", default="", help="the model's name in V2 paths; default its own")
    parser.add_argument("--revision", default="", help="what the answers carry; default the model's version")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="DIGEST", help="load this bundle's pickled code"
    )
    parser.add_argument("--grace", type=float, default=25.0, help="seconds for requests in flight at SIGTERM")
    parser.add_argument("--max-body-mb", type=float, default=64.0)
    parser.add_argument(
        "--announce", action="store_true", help="print one line of JSON with the address when it serves"
    )
    access_arguments.add(parser)
    return parser


def _serve(asked: argparse.Namespace, environ: Mapping[str, str], scratch: Path) -> int:
    limits = Limits(max_body=int(asked.max_body_mb * MEBIBYTE))
    access, routes = access_arguments.read(asked, environ), _routes(environ)
    # Before the model: a port that is taken should not cost a minute of loading. It listens only when the model is ready.
    with _bind(asked.host, _port(asked.port, environ)) as sock:
        bundle = find_bundle(asked, environ, scratch)
        _end_on_sigterm()
        from modeldeploy.serving import lines
        from modeldeploy.serving.boot import boot
        from modeldeploy.serving.http import run
        from modeldeploy.serving.standalone import Standalone

        standalone = Standalone(limits)
        app = boot(
            bundle,
            name=asked.name,
            revision=asked.revision,
            trust=[*asked.trust, *_split(environ.get("MODELDEPLOY_TRUST", ""))],
            routes=routes,
            metrics=standalone.metrics,
            row_by_row=lines.wanted(environ),
        )
        announce = functools.partial(_announce, app, sock.getsockname(), aloud=asked.announce)
        with contextlib.closing(access_arguments.entrance(access, app.name, routes)) as entrance:
            return run(standalone.serve(app, sock, grace=asked.grace, announce=announce, entrance=entrance))


def _announce(app: App, address: tuple[str, int], *, aloud: bool) -> None:
    host, port = address[:2]
    _log.info("serving %s %s on http://%s:%d", app.name, app.version, host, port)
    if aloud:
        sys.stdout.buffer.write(orjson.dumps({"host": host, "port": port, "pid": os.getpid()}) + b"\n")
        sys.stdout.flush()


def _end_on_sigterm() -> None:
    # While the model loads nothing is in flight; as process 1 of a container the default would be to ignore the signal.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))


def _routes(environ: Mapping[str, str]) -> Routes | None:
    from modeldeploy.serving.app import Routes

    health, predict = environ.get("AIP_HEALTH_ROUTE"), environ.get("AIP_PREDICT_ROUTE")
    if not (health or predict):
        return None
    return Routes(health=health or "/ping", predict=predict or "/invocations")


def _port(asked: int | None, environ: Mapping[str, str]) -> int:
    if asked is not None:
        return asked
    named = environ.get("AIP_HTTP_PORT") or str(_DEFAULT_PORT)
    if not named.isdecimal():
        message = f"AIP_HTTP_PORT is {named!r}"
        raise ConfigurationError(message, hint="it must be a port number")
    return int(named)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        message = f"cannot serve on {host!r}, port {port}: {error}"
        raise ConfigurationError(message, hint="end what uses the port, or pass another with --port") from error
    return sock


def _split(text: str) -> list[str]:
    return [part for part in text.replace(",", " ").split() if part]


def find_bundle(asked: argparse.Namespace, environ: Mapping[str, str], scratch: Path) -> Path:
    """Find the bundle's directory, unpacking an archive into ``scratch``; ConfigurationError lists where it was looked for."""
    if asked.bundle is not None:
        return Path(asked.bundle)
    if asked.archive is not None:
        return _unpack(Path(asked.archive), scratch)
    places = [
        place for place in (_storage(environ, scratch), environ.get("AZUREML_MODEL_DIR"), _sagemaker(environ)) if place
    ]
    for place in places:
        found = _look_in(Path(place), scratch)
        if found is not None:
            return found
    message = f"no bundle in {places}"
    raise ConfigurationError(message, hint="pass --bundle DIR or --archive FILE")


def _sagemaker(environ: Mapping[str, str]) -> str:
    # The variable by which the provider's own inference toolkit is told to look elsewhere.
    return f"{environ.get('SAGEMAKER_BASE_DIR') or SAGEMAKER_BASE}/model"


def _storage(environ: Mapping[str, str], scratch: Path) -> str:
    uri = environ.get("AIP_STORAGE_URI", "").removeprefix("file://")
    if uri.startswith("gs://"):
        from modeldeploy.serving import cloud_storage

        return str(cloud_storage.fetch(uri, scratch / "fetched", environ))
    if "://" in uri:
        message = f"AIP_STORAGE_URI {uri!r} is neither a directory here nor a place in Cloud Storage"
        raise ConfigurationError(message, hint="put the bundle into the image, or mount the bucket and pass --bundle")
    return uri


def _look_in(place: Path, scratch: Path) -> Path | None:
    """Look for a bundle in a directory, one level below it (Azure ML adds the model's folder), or as an archive in it."""
    if not place.is_dir():
        return _unpack(place, scratch) if place.name.endswith(".tar.gz") and place.is_file() else None
    if (place / _MANIFEST).is_file():
        return place
    found = sorted([path.parent for path in place.glob(f"*/{_MANIFEST}")] + list(place.glob("*.tar.gz")))
    if len(found) > 1:
        message = f"{str(place)!r} holds more than one bundle: {[path.name for path in found]}"
        raise ConfigurationError(message, hint="pass the one that is meant with --bundle or --archive")
    return next((path if path.is_dir() else _unpack(path, scratch) for path in found), None)


def _unpack(archive: Path, scratch: Path) -> Path:
    from modeldeploy.packaging.bundle import Bundle

    if not archive.is_file():
        message = f"there is no archive at {str(archive)!r}"
        raise ConfigurationError(message, hint="pass the path of a .tar.gz that Model.archive() made")
    return Bundle.unpack(archive, scratch / "bundle").path


if __name__ == "__main__":
    sys.exit(main())
