"""Where the local backend keeps what it keeps.

Durable things lie in ``home/local``. Sockets cannot: the path of a Unix socket has room for about 100 bytes, so they lie in a short private
directory under the system's temporary one, which the supervisor picks and names in ``supervisor.json``.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from modeldeploy.errors import ConfigurationError, IntegrityError

_PRIVATE = 0o700
_OTHERS = 0o077
# sun_path holds 104 bytes on macOS and 108 on Linux; file names in the directory take up to 24.
_MAX_DIRECTORY = 76
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Paths(NamedTuple):  # no attrs class: whoever deploys needs it before anything else is imported
    """The files of one state directory."""

    home: Path

    @property
    def root(self) -> Path:
        """The directory of everything durable."""
        return self.home / "local"

    @property
    def state(self) -> Path:
        """What is wanted: endpoints, revisions, traffic."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this home."""
        return self.root / "supervisor.lock"

    @property
    def info(self) -> Path:
        """How to reach the supervisor: its pid and its control socket."""
        return self.root / "supervisor.json"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor has to say."""
        return self.root / "supervisor.log"

    @property
    def keys(self) -> Path:
        """The API keys; hashes, no secrets."""
        return self.root / "keys.json"

    @property
    def owner(self) -> Path:
        """The secret by which this user's own processes are known to the endpoints."""
        return self.root / "owner.secret"

    @property
    def audit(self) -> Path:
        """Who asked what, of the endpoints that keep it."""
        return self.root / "audit.jsonl"

    def log(self, endpoint: str, revision: str) -> Path:
        """Give the log of one revision; ConfigurationError for a name that is none."""
        return self.root / "logs" / _part(endpoint) / f"{_part(revision)}.log"

    def runtime(self) -> Path:
        """Give the directory of the sockets; it is the same for the same home and user."""
        import hashlib
        import tempfile

        name = f"md-{_uid()}-{hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]}"
        bases = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - private() makes and checks a directory in it
        return next(
            (base / name for base in bases if len(os.fsencode(base / name)) <= _MAX_DIRECTORY), bases[-1] / name
        )


def _part(name: str) -> str:
    """Return a name that stays within its directory, on a command line, and on its line."""
    if _PART.fullmatch(name) is None:
        message = f"{name!r} is not the name of an endpoint or a revision"
        raise ConfigurationError(message, hint="use letters, digits and . _ -, beginning with a letter or a digit")
    return name


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def make_private(directory: Path) -> Path:
    """Make a directory that only we can enter; IntegrityError when somebody else's is in its place."""
    directory.mkdir(mode=_PRIVATE, exist_ok=True)
    check_private(directory)
    return directory


def check_private(directory: Path) -> None:
    """Raise IntegrityError unless the directory is ours alone: whoever else can write there could answer in our place."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _uid() or found.st_mode & _OTHERS:
        message = f"{str(directory)!r} is not a private directory of this user"
        raise IntegrityError(message, hint="remove it, or set TMPDIR to a directory of your own")
