"""Who acts, who drives, and whether that driver still lives."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from pathlib import Path

_driving: set[str] = set()
"""The drivers of this process that have not ended: the process lives on after one of them could not give its operation back."""


def whoami() -> str:
    """Say who acts: ``user@host``."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def new_owner() -> str:
    """Name a new driver in this process: host, process id, and a token of its own. It counts as living until ``forget``."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{_namespace()}.{secrets.token_hex(4)}"
    _driving.add(owner)
    return owner


def forget(owner: str) -> None:
    """Say that a driver of this process has ended, whether or not it could give its operation back."""
    _driving.discard(owner)


def lives(owner: str, until: float, at: float) -> bool:
    """Whether a driver may still act: its lease runs, and on this machine it is also there."""
    return at < until and _is_there(owner)


def _is_there(owner: str) -> bool:
    host, pid, token = owner.rsplit(":", 2)
    space, dot, _rest = token.partition(".")
    if host != socket.gethostname() or (dot and space != _namespace()):
        return True  # nobody can say from here
    if int(pid) == os.getpid():
        return owner in _driving
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def describe(owner: str) -> str:
    """Say in words who drives."""
    host, pid, _token = owner.rsplit(":", 2)
    return f"process {pid} on {host}"


def _namespace() -> str:
    """Name the space of process ids; empty where there is but one.

    Containers may share a name and a state directory, and the processes of one look dead to the other.
    """
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""
