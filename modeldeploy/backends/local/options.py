"""What can be set for an endpoint and for a revision on this machine; everything else is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeVar

import attrs

from modeldeploy.backends.local.paths import Paths
from modeldeploy.backends.options import check_range
from modeldeploy.backends.options import read as read_options
from modeldeploy.errors import ConfigurationError
from modeldeploy.serving.access import Access

LOOPBACK = "127.0.0.1"
T = TypeVar("T")
_STARTS = ("fork", "spawn")
_MAX_PORT = 65_535


@attrs.frozen
class EndpointOptions:
    """Options of an endpoint."""

    host: str = LOOPBACK
    """Address to listen on; left out, it is the backend's."""
    port: int = 0
    """0 lets the system choose; it is remembered."""
    safe_canary: bool = True
    """Whether a failed answer of a canary is answered again by stable."""
    auth: str = ""
    """``keys`` or ``none``; left out it is ``none`` on loopback and ``keys`` elsewhere."""
    allowed_hosts: str = ""
    """Hosts, separated by commas, that requests to a loopback address may name beside this machine's; ``*`` for any."""
    rate: float = 0.0
    """Requests per second of each key, or of each address where there are no keys; 0 for no limit."""
    burst: int = 0
    """How many of them may come at once; 0 for one second's."""
    audit: bool = False
    """Whether requests are noted in the audit log."""

    def __attrs_post_init__(self) -> None:
        check_range("port", self.port, 0, _MAX_PORT)
        if not self.host:  # to a socket that would be every address of this machine
            message = "option host is empty"
            raise ConfigurationError(message, hint=f"leave it out for {LOOPBACK}, or name an address")
        self.access(None)

    def access(self, paths: Paths | None) -> Access:
        """Say who may ask; ConfigurationError names what does not fit."""
        files = {} if paths is None else {"keys": str(paths.keys), "owner": str(paths.owner)}
        return Access(
            host=self.host,
            auth=self.auth,
            allowed_hosts=tuple(each.strip() for each in self.allowed_hosts.split(",") if each.strip()),
            rate=self.rate,
            burst=self.burst,
            audit=str(paths.audit) if paths is not None and self.audit else "",
            **files,
        )


@attrs.frozen
class RevisionOptions:
    """Options of a revision; durations in seconds."""

    threads: int = 1
    """Threads that numerical libraries may use in each worker."""
    queue: int = 1_000
    """Requests that may wait; one more is turned away with 429."""
    deadline: float = 30.0
    """How long a request may take before it is answered with 504 and its worker replaced."""
    max_batch: int = 256
    """Requests that a worker is given at once."""
    retry_on_crash: bool = True
    """Whether a request whose worker died is sent once more."""
    start_timeout: float = 300.0
    """How long a worker may take to load its model."""
    grace: float = 30.0
    """How long requests in flight may take when the revision is dropped."""
    max_memory_mb: int = 0
    """Resident memory at which a worker is replaced, without a failed request; 0 for no limit. Linux only."""
    start: str = "fork"
    """``fork`` from a process that has the libraries loaded already, or ``spawn`` a fresh interpreter."""
    trust: str = ""
    """Digest of a bundle with pickled content that may be loaded although it was not packaged here."""

    @property
    def forks(self) -> bool:
        """Whether workers are forked: libraries fix their number of threads when they are loaded, which in a fork server has happened already."""
        return self.start == "fork" and self.threads == 1

    def __attrs_post_init__(self) -> None:
        for name in ("threads", "queue", "max_batch"):
            check_range(name, getattr(self, name), 1, 1_000_000)
        for name in ("deadline", "start_timeout", "grace"):
            check_range(name, getattr(self, name), 0.001, 86_400)
        check_range("max_memory_mb", self.max_memory_mb, 0, 1 << 30)
        if self.max_memory_mb and sys.platform != "linux":
            message = "option max_memory_mb needs Linux, where the memory of a process can be read"
            raise ConfigurationError(message, hint="leave it out")
        if self.start not in _STARTS:
            message = f"option start is {self.start!r}"
            raise ConfigurationError(message, hint=f"use one of {list(_STARTS)}")


def read(cls: type[T], options: Mapping[str, str], what: str) -> T:
    """Make typed options of text; ConfigurationError names the one that is unknown or wrong."""
    return read_options(cls, options, what, backend="local")
