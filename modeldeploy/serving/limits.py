"""How much one client may ask of the server."""

from __future__ import annotations

import enum
from math import inf

import attrs

from modeldeploy.errors import ConfigurationError

MEBIBYTE = 1 << 20


@attrs.frozen
class Limits:
    """Sizes in bytes, times in seconds; every one is there to stop a client that sends too much, too slowly or never reads."""

    max_body: int = 64 * MEBIBYTE
    max_head: int = 32 * 1024
    """Request line and headers together."""
    max_headers: int = 100
    max_held: int = 512 * MEBIBYTE
    """Bodies of all requests in hand; the next one is told to come back later."""
    max_connections: int = 1024
    max_pending: int = 1024
    """Requests that wait for the model."""
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    min_rate: int = 16 * 1024
    """Bytes per second that a body must arrive at once ``body_timeout`` is used up."""
    idle_timeout: float = 75.0
    write_timeout: float = 30.0
    """How long a client may leave its answer unread."""
    linger: float = 0.25
    """How long a draining server still accepts, so that clients and balancers learn of it before the door closes."""

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if not value >= 0:
                message = f"limit {name} is {value!r}"
                raise ConfigurationError(message, hint="use a number of 0 or more")

    @property
    def tick(self) -> float:
        """How often the time-outs need looking at."""
        shortest = min(self.header_timeout, self.body_timeout, self.idle_timeout, self.write_timeout)
        return min(1.0, max(0.01, shortest / 4))


class Room(enum.Enum):
    """What there is room for when a connection comes."""

    FOR_REQUESTS = enum.auto()
    FOR_A_REFUSAL = enum.auto()
    NONE = enum.auto()


# Descriptors kept back: for the connections that are told to come back later, and for our own needs.
_SPARE = 16
_OWN = 4


def descriptors() -> float:
    """Read how many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return inf
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft == resource.RLIM_INFINITY else soft


def room(limits: Limits, connections: int, descriptor: int, most: float) -> Room:
    """Judge a new connection by how many there are and by its descriptor: the lowest free one is given out, so it tells how many are left."""
    if connections >= 2 * limits.max_connections or descriptor >= most - _OWN:
        return Room.NONE
    if connections >= limits.max_connections or descriptor >= most - _SPARE:
        return Room.FOR_A_REFUSAL
    return Room.FOR_REQUESTS
