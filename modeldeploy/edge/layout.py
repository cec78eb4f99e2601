"""What lies where in the store of a fleet."""

from __future__ import annotations

import re

from modeldeploy.errors import ConfigurationError

DESIRED = "desired.json"
RELEASES = "releases/"
REPORTS = "reports/"

_SHA256 = re.compile(r"[0-9a-f]{64}")
# What every store takes as one part of a path, and no file system takes for something else.
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def release_path(digest: str) -> str:
    """Say where a release lies: under its own digest, so what lies there never changes."""
    return f"{RELEASES}{check_release_digest(digest)}.tar.gz"


def report_path(device: str) -> str:
    """Say where a device leaves its report."""
    return f"{REPORTS}{check_device(device)}.json"


def check_device(device: str) -> str:
    """Return a device's id when it can be a file's name everywhere, else raise ConfigurationError.

    >>> check_device("line-3.camera_12")
    'line-3.camera_12'
    """
    if not isinstance(device, str) or _DEVICE.fullmatch(device) is None:
        message = f"device id {device!r:.100} is not a valid name"
        raise ConfigurationError(
            message, hint="use up to 63 letters, digits, dots, hyphens and underscores, a letter or digit first"
        )
    return device


def check_release_digest(digest: str) -> str:
    """Return the digest of a release's archive when it is one, else raise ConfigurationError."""
    if not isinstance(digest, str) or _SHA256.fullmatch(digest) is None:
        message = f"{digest!r:.100} is not the digest of a release"
        raise ConfigurationError(message, hint="it has 64 hexadecimal digits")
    return digest
