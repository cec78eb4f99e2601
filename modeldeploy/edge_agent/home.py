"""What an agent has to itself: its home, and its port."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import orjson

from modeldeploy.edge_agent import durable
from modeldeploy.edge_agent.config import Config
from modeldeploy.errors import ConfigurationError, ConflictError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep a second agent away from a home; ConflictError when there is one."""
    import fcntl

    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another agent runs in {str(home)!r}"
            raise ConflictError(message, hint="give each device a home of its own") from error
        yield


def listen(config: Config) -> socket.socket:
    """Bind to loopback: the port that is asked for, else the one that this device had before, else any."""
    file = config.home / "address.json"
    before = 0
    with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        before = int(orjson.loads(file.read_bytes())["port"])
    for port in (config.port,) if config.port else (before, 0):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            sock.close()
            failed = error
            continue
        _note(file, before, sock.getsockname()[1])
        return sock
    message = f"cannot serve on port {config.port}: {failed}"
    raise ConfigurationError(message, hint="end what uses the port, or pass another with --port") from failed


def _note(file: Path, before: int, port: int) -> None:
    """Write the port down for the next start; a disk that is full keeps no device from serving."""
    if port != before:
        try:
            durable.write_json(file, {"host": "127.0.0.1", "port": port})
        except OSError as error:
            _log.warning("the port cannot be written down: %s", error)
