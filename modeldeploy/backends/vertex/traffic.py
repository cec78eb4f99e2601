"""A whole new table of traffic: one write over the endpoint as it was read, and a look whether it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.vertex.change import START, Change, Tools
from modeldeploy.backends.vertex.described import Seen
from modeldeploy.backends.vertex.errors import BusyError
from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Ticket

_WRITTEN = "written"
_TRIES = 3
"""How often a table is written in one step over what was read anew, when somebody else was faster."""


class SetTraffic(Change):
    """Bring a table to an endpoint; a deployment that is under way does not hold it up, for a rollback must not wait."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        super().__init__(tools, ticket)
        self._table = from_json(Traffic, ticket.wanted["traffic"])
        self._expect: str | None = ticket.wanted.get("expect")

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, _WRITTEN: self._watch}

    def _start(self, _step: Step) -> Ticket:
        for _try in range(_TRIES - 1):
            with contextlib.suppress(BusyError):
                return self._write()
        return self._write()

    def _write(self) -> Ticket:
        seen = self._seen()
        self._provider.refuse_foreign(seen)
        refuse_table(seen, self._table)
        if seen.traffic.same_as(self._table):
            return self._move(_WRITTEN, "the table is there")
        self._refuse_other_version(seen)
        # Refused by the service when the endpoint is not what was read just now.
        self._provider.put_traffic(seen, self._table)
        return self._move(_WRITTEN, "the service was asked")

    def _refuse_other_version(self, seen: Seen) -> None:
        if self._expect is not None and self._expect != seen.version:
            message = f"endpoint {self.name!r} is at version {seen.version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")

    def _watch(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        if seen is not None and seen.traffic.same_as(self._table):
            return self._finished()
        if seen is not None and not self._late(step):
            return self._wait(step, "the service still shows what was before")
        now = f"traffic is {seen.traffic.live}" if seen else "the endpoint is gone"
        return self.ticket.failed(f"{now}: somebody else changed it, or it was undone")


def refuse_table(seen: Seen, table: Traffic) -> None:
    """Refuse a table that this endpoint cannot hold, before anything is sent."""
    known = [each.name for each in seen.deployed]
    unknown = sorted(set(table.live) - set(known))
    if unknown:
        message = f"endpoint {seen.name!r} has no revisions {unknown}"
        raise NotFoundError(message, hint=f"it has {known}", context={"backend": "vertex"})
