"""A backend with faults: what networks and providers do on a bad day, by script or by seed."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import attrs

from modeldeploy.errors import ThrottledError, UnavailableError, UnsupportedError
from modeldeploy.spi import Identity, Meters, Serving
from modeldeploy.values.edge import Device
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, EndpointState, Payload, Revision, Traffic
from modeldeploy.values.ticket import Action, Ticket

T = TypeVar("T")


class Fault(enum.StrEnum):
    """What goes wrong with one call."""

    REFUSE = "refuse"
    """The provider is not reached; nothing happened there."""
    LOSE = "lose"
    """The provider did it and the answer is lost."""
    THROTTLE = "throttle"
    """Too many requests; it says how long to wait."""
    STUCK = "stuck"
    """An advance looks at nothing and gives the ticket back as it was."""
    STALE = "stale"
    """An observation gives the state as it was seen the time before."""
    UNDO = "undo"
    """The provider takes a change of traffic and then quietly puts the old table back."""


TRANSIENT = (Fault.REFUSE, Fault.LOSE, Fault.THROTTLE, Fault.STUCK)
"""Faults after which the same work must still come to the same end."""


@attrs.frozen
class Seen:
    """One fault that happened: to the ``number``-th call, a ``call``."""

    number: int
    call: str
    fault: Fault


class FaultyBackend:
    """Passes every call on to ``inner``, with faults.

    ``script`` gives the fault of the n-th call (from 1), or of the n-th call of one kind: ``{"advance:2": Fault.LOSE}``. Besides, each call
    meets one of ``kinds`` with probability ``rate``, drawn from ``seed``; never more than ``in_a_row`` such faults follow each other.
    """

    def __init__(
        self,
        inner: Serving,
        script: Mapping[int | str, Fault] | None = None,
        *,
        seed: int = 0,
        rate: float = 0.0,
        kinds: tuple[Fault, ...] = TRANSIENT,
        in_a_row: int = 3,
        retry_after: float = 7.0,
    ) -> None:
        self.inner = inner
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.seen: list[Seen] = []
        self._script, self._kinds, self._rate = dict(script or {}), kinds, rate
        self._rng = random.Random(seed)  # noqa: S311 - repeatable faults, no secret
        self._in_a_row, self._row, self._retry_after = in_a_row, 0, retry_after
        self._counts: dict[str, int] = {}
        self._states: dict[str, EndpointState | None] = {}

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:  # noqa: ARG003 - the protocol's shape
        """Refuse: a faulty backend is made around another one."""
        message = "a faulty backend wraps another one"
        raise UnsupportedError(message, capability="configure", hint="FaultyBackend(inner, script)")

    def check(self) -> Identity:
        """Pass on."""
        return self._pass("check", self.inner.check)

    def close(self) -> None:
        """Pass on, without faults."""
        self.inner.close()

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Pass on."""
        return self._pass("put_revision", lambda: self.inner.put_revision(endpoint, revision))

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Pass on."""
        return self._pass("set_traffic", lambda: self.inner.set_traffic(endpoint, traffic, expect=expect))

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Pass on."""
        return self._pass("drop_revision", lambda: self.inner.drop_revision(endpoint, revision))

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Pass on."""
        return self._pass("drop_endpoint", lambda: self.inner.drop_endpoint(endpoint))

    def advance(self, ticket: Ticket) -> Ticket:
        """Pass on, or do not look, or let the provider put the old table back."""
        fault = self._draw("advance")
        if fault is Fault.STUCK:
            return ticket
        if fault is Fault.UNDO and ticket.action is Action.SET_TRAFFIC:
            return self._undone(ticket)
        return self._suffer(fault, "advance", lambda: self.inner.advance(ticket))

    def cancel(self, ticket: Ticket) -> Ticket:
        """Pass on."""
        return self._pass("cancel", lambda: self.inner.cancel(ticket))

    def observe(self, endpoint: str) -> EndpointState | None:
        """Pass on, or give what was seen the time before."""
        fault = self._draw("observe")
        if fault is Fault.STALE and endpoint in self._states:
            return self._states[endpoint]
        self._states[endpoint] = self._suffer(fault, "observe", lambda: self.inner.observe(endpoint))
        return self._states[endpoint]

    def endpoints(self) -> Iterable[str]:
        """Pass on."""
        return self._pass("endpoints", self.inner.endpoints)

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        """Pass on, without faults: these are the control plane's."""
        return self.inner.invoke(endpoint, payload, revision=revision, timeout=timeout)

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:
        """Pass on."""
        self.capabilities.require("meters", backend=self.name)
        meters: Any = self.inner
        assert isinstance(meters, Meters)
        return self._pass("window", lambda: meters.window(endpoint, revision, since, until, share=share))

    def devices(self, target: str) -> Sequence[Device]:
        """Pass on."""
        self.capabilities.require("edge", backend=self.name)
        edge: Any = self.inner
        return self._pass("devices", lambda: edge.devices(target))

    def _pass(self, call: str, act: Callable[[], T]) -> T:
        return self._suffer(self._draw(call), call, act)

    def _draw(self, call: str) -> Fault | None:
        self._counts[call] = self._counts.get(call, 0) + 1
        number = sum(self._counts.values())
        fault = self._script.get(number) or self._script.get(f"{call}:{self._counts[call]}") or self._chance()
        if fault is not None:
            self.seen.append(Seen(number, call, fault))
        return fault

    def _chance(self) -> Fault | None:
        unlucky = self._rng.random() < self._rate and self._row < self._in_a_row
        self._row = self._row + 1 if unlucky else 0
        return self._rng.choice(self._kinds) if unlucky else None

    def _suffer(self, fault: Fault | None, call: str, act: Callable[[], T]) -> T:
        if fault is Fault.REFUSE:
            message = f"{call}: the provider was not reached"
            raise UnavailableError(message)
        if fault is Fault.THROTTLE:
            message = f"{call}: too many requests"
            raise ThrottledError(message, retry_after=self._retry_after)
        answer = act()
        if fault is Fault.LOSE:
            message = f"{call}: the answer was lost"
            raise UnavailableError(message)
        return answer

    def _undone(self, ticket: Ticket) -> Ticket:
        before = self.inner.observe(ticket.target)
        after = self.inner.advance(ticket)
        if before is not None:
            back = self.inner.set_traffic(ticket.target, before.traffic)
            while not back.phase.ended:
                back = self.inner.advance(back)
        return after
