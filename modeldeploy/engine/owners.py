"""Who acts, who drives, and whether that driver still lives."""

from __future__ import annotations

import getpass
import os
import secrets
import socket


def whoami() -> str:
    """Say who acts: ``user@host``."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def new_owner() -> str:
    """Name a new driver in this process: host, process id, and a token of its own."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def lives(owner: str, until: float, at: float) -> bool:
    """Whether a driver may still act: its lease runs, and on this machine its process is there too."""
    host, pid, _token = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return at < until
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return at < until


def describe(owner: str) -> str:
    """Say in words who drives."""
    host, pid, _token = owner.rsplit(":", 2)
    return f"process {pid} on {host}"
