"""What goes wrong on demand; every switch may be turned while the simulator runs."""

from __future__ import annotations

import threading

import attrs


@attrs.define(eq=False)
class Faults:
    """Switches of bad days. Durations are in seconds of the service, which pass ``speed`` times as fast here."""

    throttle_every: int = 0
    """Every n-th request of the control plane is answered with 429 and ``Retry-After``; 0 for none."""
    fail_every: int = 0
    """Every n-th request of the control plane is answered with 500 ``InternalServerError``; 0 for none."""
    _calls: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
