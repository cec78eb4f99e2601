"""A whole new table of traffic: by weights where they suffice, by another configuration where copies begin or end."""

from __future__ import annotations

from collections.abc import Callable

from modeldeploy.backends.cloud.steps import Step, moved
from modeldeploy.backends.sagemaker import names, translate
from modeldeploy.backends.sagemaker.change import START, Change, Tools, refuse_failed
from modeldeploy.backends.sagemaker.described import Config, Seen
from modeldeploy.backends.sagemaker.errors import BusyError
from modeldeploy.backends.sagemaker.verdicts import MOVING
from modeldeploy.errors import ConflictError, NotFoundError, UnsupportedError
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Ticket

_ROOM = "drop the revisions that take no traffic first (keep=0 in the rollout before)"


class SetTraffic(Change):
    """Bring a table to an endpoint."""

    at_once = True

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        super().__init__(tools, ticket)
        self._table = from_json(Traffic, ticket.wanted["traffic"])
        self._expect: str | None = ticket.wanted.get("expect")

    def _steps(self) -> dict[str, Callable[[Step], Ticket]]:
        return {START: self._start}

    def _start(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is None or config is None:
            raise not_there(self.name)
        refuse_table(self.name, self._table, config)
        if not seen.status.settled:
            # Repeated after an answer was lost: it is this very table that is on its way.
            own = seen.aimed.same_as(self._table) or self._brings(seen)
            return moved(self.ticket, Step(MOVING, at=seen.changed)) if own else self._busy(seen)
        broken = refuse_failed(seen)
        if broken:
            return self.ticket.failed(broken)
        if seen.traffic.same_as(self._table):
            return self._ask("")
        self._refuse_other_version(seen)
        if self._shape(config) != self._shape_wanted():
            return self._prepare(step)
        return self._reweigh(seen, config)

    def _refuse_other_version(self, seen: Seen) -> None:
        if self._expect is not None and self._expect != seen.version:
            message = f"endpoint {self.name!r} is at version {seen.version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")

    def _reweigh(self, seen: Seen, config: Config) -> Ticket:
        try:
            self._provider.client.sagemaker(
                "update_endpoint_weights_and_capacities",
                EndpointName=self.name,
                DesiredWeightsAndCapacities=translate.weights(config, self._table),
            )
        except BusyError:
            return self._busy(seen)
        return self._ask("")

    # Copies: another configuration

    @staticmethod
    def _shape(config: Config) -> dict[str, int]:
        return {each.name: round(each.weight) for each in config.shadow}

    def _shape_wanted(self) -> dict[str, int]:
        return self._table.copies

    def _wanted(self, seen: Seen | None, config: Config | None) -> Config | None:
        if seen is None or config is None:
            raise not_there(self.name)
        refuse_table(self.name, self._table, config)
        if seen.traffic.same_as(self._table):
            return None
        self._refuse_other_version(seen)
        return config.with_traffic(self._table)

    def _in(self, config: Config) -> bool:
        return config.with_traffic(self._table) == config

    def _holds(self, seen: Seen) -> bool:
        return seen.traffic.same_as(self._table) and seen.aimed.same_as(self._table)

    def _failed(self, note: str) -> Ticket:
        seen = self._provider.seen(self.name)
        now = f"traffic is {seen.traffic.live}" if seen else "the endpoint is gone"
        return self.ticket.failed(f"{now}: {note}")


def not_there(endpoint: str) -> NotFoundError:
    """Say that there is no such endpoint."""
    message = f"there is no endpoint {endpoint!r}"
    return NotFoundError(message, hint="Endpoint.list() names those that there are", context={"backend": "sagemaker"})


def refuse_guarded(endpoint: str, config: Config) -> None:
    """Refuse an endpoint that was made with a guard: it has one variant, and its revisions are not variants."""
    if config.find(names.PRIMARY) is not None:
        message = f"endpoint {endpoint!r} was made with a guard"
        raise ConflictError(message, hint="use a backend with guard= for it, or deploy under another endpoint name")


def refuse_table(endpoint: str, table: Traffic, config: Config) -> None:
    """Refuse a table that this endpoint cannot hold, before anything is sent."""
    known = [each.name for each in config.variants]
    unknown = sorted({*table.live, *table.copies} - set(known))
    if unknown:
        message = f"endpoint {endpoint!r} has no revisions {unknown}"
        raise NotFoundError(message, hint=f"it has {known}", context={"backend": "sagemaker"})
    if not table.live:
        message = f"endpoint {endpoint!r} cannot be left without traffic: SageMaker sends every request to some variant"
        raise UnsupportedError(
            message, capability="split", hint="delete the endpoint, or give its traffic to a revision"
        )
    if table.copies and len(known) > len(table.copies) + 1:
        message = (
            f"endpoint {endpoint!r} has {len(known)} revisions, and copies go from one production variant to one shadow"
        )
        raise UnsupportedError(message, capability="shadow", hint=_ROOM)
    if table.copies and config.asynchronous:
        message = f"endpoint {endpoint!r} is asynchronous, and SageMaker copies no requests of such"
        raise UnsupportedError(message, capability="shadow", hint="ask the revision yourself: predict(..., revision=)")
