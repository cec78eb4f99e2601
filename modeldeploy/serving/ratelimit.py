"""Token buckets: each caller may ask ``rate`` times a second, and ``burst`` times at once.

Kept as one number for each caller, the time at which its bucket will be full again (the generic cell rate algorithm of ITU-T I.371), so
nothing has to be refilled by a timer.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import time
from collections.abc import Callable

import attrs

from modeldeploy.errors import ConfigurationError

MOST_CALLERS = 10_000
_OTHERS = "\0others"
_SWEEP_S = 1.0


@attrs.frozen
class Rate:
    """Requests per second, and how many may come at once."""

    rate: float
    burst: int

    def __attrs_post_init__(self) -> None:
        # Written so that nan is refused too.
        if not (0 < self.rate < math.inf and self.burst >= 1):
            message = f"the rate limit is {self.rate!r} requests per second with bursts of {self.burst!r}"
            raise ConfigurationError(message, hint="use a rate above 0 and a burst of 1 or more")

    @classmethod
    def of(cls, rate: float | None, burst: int | None) -> Rate | None:
        """Make one; None without a rate. Without a burst it is one second's requests."""
        if not rate:
            return None
        return cls(rate, burst or (math.ceil(rate) if 0 < rate < math.inf else 1))


class Buckets:
    """A bucket for each caller, of ``most`` callers; those beyond them share one bucket, so that memory is bounded and nobody is forgotten."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = MOST_CALLERS) -> None:
        self._clock = clock
        self._most = most
        self._full_at: dict[str, float] = {}
        self._swept = -math.inf

    def take(self, caller: str, limit: Rate) -> float:
        """Take a token; gives 0, or the seconds until there is one, and then takes none."""
        now = self._clock()
        if caller not in self._full_at and len(self._full_at) >= self._most and not self._sweep(now):
            caller = _OTHERS
        each = 1 / limit.rate
        full_at = max(now, self._full_at.get(caller, now))
        wait = full_at + each - (now + limit.burst * each)
        # Sums of many fractions: what is a token but for rounding is a token.
        if wait > each * 1e-6:
            return wait
        self._full_at[caller] = full_at + each
        return 0.0

    def _sweep(self, now: float) -> bool:
        """Forget those whose bucket is full, which is how a new one begins; at most once a second. Whether there is room now."""
        if now - self._swept >= _SWEEP_S:
            self._swept = now
            self._full_at = {caller: full_at for caller, full_at in self._full_at.items() if full_at > now}
        return len(self._full_at) < self._most


@functools.lru_cache(maxsize=4096)
def network(address: str) -> str:
    """Give what counts as one caller: an IPv4 address, or the /64 network of an IPv6 one, which is what one customer is given."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
