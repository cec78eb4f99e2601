"""A whole new table of traffic and of mirrored requests: one write of the endpoint, and a look whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modeldeploy.backends.azureml.change import START, Change, Tools, watched
from modeldeploy.backends.azureml.described import Seen
from modeldeploy.backends.azureml.verdicts import Outcome
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.errors import ConflictError, NotFoundError, UnsupportedError
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Ticket

_WRITTEN = "written"


class SetTraffic(Change):
    """Bring a table to an endpoint."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        super().__init__(tools, ticket)
        self._table = from_json(Traffic, ticket.wanted["traffic"])
        self._expect: str | None = ticket.wanted.get("expect")

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, **watched(_WRITTEN, self._watch)}

    def _start(self, _step: Step) -> Ticket:
        seen = self._seen()
        self._provider.refuse_foreign(seen)
        refuse_table(seen, self._table)
        if not seen.state.settled:
            # Repeated after an answer was lost, it is this very table that is on its way: what is shown till then is the old one.
            return self._busy(seen.state)
        if seen.traffic.same_as(self._table):
            return self._move(_WRITTEN, "the table is there")
        self._refuse_other_version(seen)
        operation = self._provider.put_traffic(seen, self._table)
        return self._move(_WRITTEN, "the service was asked", about=operation)

    def _refuse_other_version(self, seen: Seen) -> None:
        if self._expect is not None and self._expect != seen.version:
            message = f"endpoint {self.name!r} is at version {seen.version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")

    def _watch(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        holds = seen is not None and seen.traffic.same_as(self._table)
        verdict = self._judge(seen.state if seen else None, step, holds=holds)
        if verdict.outcome is Outcome.DONE:
            return self._finished()
        if verdict.outcome is Outcome.FAILED:
            now = f"traffic is {seen.traffic.live}" if seen else "the endpoint is gone"
            return self.ticket.failed(f"{now}: {self._why(step, verdict)}")
        return self._goes_on(step, verdict)


def refuse_table(seen: Seen, table: Traffic) -> None:
    """Refuse a table that this endpoint cannot hold, before anything is sent."""
    known = [each.name for each in seen.deployments]
    unknown = sorted({*table.live, *table.copies} - set(known))
    if unknown:
        message = f"endpoint {seen.name!r} has no revisions {unknown}"
        raise NotFoundError(message, hint=f"it has {known}", context={"backend": "azureml"})
    both = sorted(set(table.live) & set(table.copies))
    if both:
        message = f"revision {both[0]!r} cannot take traffic and copies at one time"
        raise UnsupportedError(message, capability="shadow", hint="mirror to a revision that takes no traffic")
    if table.copies and not table.live:
        message = f"endpoint {seen.name!r} has no traffic that could be copied"
        raise UnsupportedError(message, capability="shadow", hint="give traffic to a revision first")
