"""What a backend can do, as data; everything not declared is refused."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.errors import UnsupportedError
from modeldeploy.values.serving import Traffic


@attrs.frozen
class Shadow:
    """How far copies of requests may go to a second revision."""

    max_targets: int = 1
    max_percent: int = 100
    alone: bool = False
    """Whether shadowing excludes a split among live revisions."""


@attrs.frozen
class Capabilities:
    """Closed by default: a new capability is "no" until a backend says yes. ``why_not`` gives the reason and the alternative."""

    serving: bool = False
    durable: bool = False
    """Whether endpoints and jobs outlive the process that made them; if not, neither does the journal of them."""
    split: int = 1
    """How many revisions may share the traffic at one time."""
    shadow: Shadow | None = None
    compares: bool = False
    """Whether the answers of copies are held against those that the callers got, as gates on disagreement need."""
    pinned_invoke: bool = False
    """Whether a call can name the revision that answers it."""
    staging: bool = False
    """Whether a new revision that no call can name is held against its golden outputs on a short-lived endpoint of its own."""
    max_request_bytes: int = 0
    """How large a request may be; 0: the provider sets no limit. Larger tables are sent in several."""
    expect_is_atomic: bool = False
    """Whether compare-and-set of traffic is safe against a concurrent writer."""
    safe_canary: bool = False
    """Whether a failed answer of a canary is answered again by stable."""
    sticky: bool = False
    """Whether the backend's own router keeps a key of the request with its revision."""
    cancel: bool = False
    meters: bool = False
    meters_by_share: bool = False
    """Whether it can tell what the traffic table gave to a revision under each share."""
    meter_resolution: float = 0.0
    """Length in seconds of the time slots that metrics are kept in; only whole slots are asked for. 0: any moment."""
    meter_delay: float = 0.0
    """For how many seconds after its end such a slot may still grow; it is asked for only then, for it is counted once."""
    logs: bool = False
    batch: bool = False
    edge: bool = False
    scale_to_zero: bool = False
    server_side_guard: bool = False
    why_not: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """By capability; ``self_test`` says why a device that refuses a revision has not the one before to go on with."""

    def require(self, capability: str, *, backend: str) -> None:
        """Raise UnsupportedError with the reason unless the capability is declared."""
        if getattr(self, capability):
            return
        reason = self.why_not.get(capability, "not declared by this backend")
        message = f"backend {backend!r} has no {capability}: {reason}"
        raise UnsupportedError(message, capability=capability, context={"backend": backend})

    def check_traffic(self, traffic: Traffic, *, backend: str) -> None:
        """Raise UnsupportedError, before anything is sent, for a table that the backend cannot hold."""
        live = traffic.live
        if len(live) > self.split:
            reason = self.why_not.get("split", f"at most {self.split} revisions share traffic at one time")
            message = f"backend {backend!r} cannot split traffic over {sorted(live)}: {reason}"
            raise UnsupportedError(message, capability="split", context={"backend": backend})
        if traffic.key:
            self.require("sticky", backend=backend)
        if traffic.copies:
            self._check_shadow(traffic.copies, live, backend)

    def _check_shadow(self, copies: Mapping[str, int], live: Mapping[str, int], backend: str) -> None:
        self.require("shadow", backend=backend)
        allowed = self.shadow or Shadow()
        problem = None
        if len(copies) > allowed.max_targets:
            problem = f"copies go to at most {allowed.max_targets} revision(s)"
        elif max(copies.values()) > allowed.max_percent:
            problem = f"at most {allowed.max_percent} % may be copied"
        elif allowed.alone and len(live) > 1:
            problem = "copies exclude a split among live revisions"
        if problem:
            message = f"backend {backend!r} cannot shadow {dict(copies)}: {problem}"
            raise UnsupportedError(message, capability="shadow", context={"backend": backend})
