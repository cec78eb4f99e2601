"""A provider that is watched, and that misbehaves as a scenario wants it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import attrs

from modeldeploy.errors import QuotaError, UnavailableError
from modeldeploy.spi import Serving
from modeldeploy.values.edge import Device
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Ticket


@attrs.frozen
class Table:
    """A table of traffic as users meet it: entries of 0 and the key of a single revision do not matter."""

    live: Mapping[str, int]
    copies: Mapping[str, int] = attrs.field(factory=dict[str, int])
    key: str = ""

    @classmethod
    def of(cls, traffic: Traffic) -> Table:
        """Leave out what does not matter."""
        return cls(traffic.live, traffic.copies, traffic.key if len(traffic.live) > 1 else "")

    def word(self, revision: str) -> str:
        """Say in a word what it gives to a revision: its share, or its copies."""
        copies = self.copies.get(revision)
        return f"copies {copies}" if copies else str(self.live.get(revision, 0))


class Watched:
    """A backend that notes every table that an endpoint goes through, as seen before and after each ``advance``."""

    def __init__(self, inner: Serving, now: Callable[[], float]) -> None:
        self._inner, self._now = inner, now
        self._last: Table | None = None
        self._first_look: float | None = None
        self.seen: list[Table] = []
        self.dark: tuple[float, float] | None = None
        """Between which seconds since the first look the metrics cannot be read."""
        self.skewed: str | None = None
        """The revision that is given six times what the table says, as the metrics have it."""
        self.full = False
        """Whether no new revision is taken."""
        self.refused: tuple[str, int] | None = None
        """The revision and the share that no table may give to it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Pass on, or refuse for good."""
        if self.full:
            message = "no room for another revision"
            raise QuotaError(message)
        return self._inner.put_revision(endpoint, revision)

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Pass on, or refuse for good."""
        if self.refused is not None and traffic.share(self.refused[0]) == self.refused[1]:
            message = f"{self.refused[1]} % is not allowed today"
            raise QuotaError(message)
        return self._inner.set_traffic(endpoint, traffic, expect=expect)

    def advance(self, ticket: Ticket) -> Ticket:
        """Pass on, and look before and after: a provider may move between two calls."""
        self.look(ticket.target)
        after = self._inner.advance(ticket)
        self.look(ticket.target)
        return after

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:
        """Pass on, or be unreadable, or tell of traffic that is not split as it should be."""
        self._see("the metrics")
        meters: Any = self._inner
        self._inner.capabilities.require("meters", backend=self._inner.name)
        found: Window = meters.window(endpoint, revision, since, until, share=share)
        return attrs.evolve(found, assigned=6 * found.assigned) if revision == self.skewed else found

    def devices(self, target: str) -> Sequence[Device]:
        """Pass on, or be unreadable."""
        self._see("the devices")
        edge: Any = self._inner
        return cast("Sequence[Device]", edge.devices(target))

    def _see(self, what: str) -> None:
        if self._first_look is None:
            self._first_look = self._now()
        if self.dark is not None and self.dark[0] <= self._now() - self._first_look < self.dark[1]:
            message = f"{what} cannot be read"
            raise UnavailableError(message)

    def look(self, endpoint: str) -> None:
        """Note the table if it is another one; what holds at the first look is where it began."""
        state = self._inner.observe(endpoint)
        table = Table.of(state.traffic) if state else Table({})
        if self._last is not None and table.live and table != self._last:
            self.seen.append(table)
        self._last = table
