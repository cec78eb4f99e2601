"""The flow of a rollback: one table back, at once; and where "back" is."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import attrs

from modeldeploy.engine.carry import carry
from modeldeploy.engine.effects import Emit, Flow, Save, call
from modeldeploy.engine.record import HistoryEntry, HistoryLine
from modeldeploy.errors import FencedError, ModelDeployError, NotFoundError, OperationFailed
from modeldeploy.spi import Rollable
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.events import Level, Name
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Phase, Ticket


class Stage(enum.StrEnum):
    """Where a rollback stands."""

    PREPARE = "prepare"
    SWITCH = "switch"


@attrs.frozen
class RollbackCursor:
    """All that a rollback must remember."""

    endpoint: EndpointSpec
    revision: Revision
    """The one that takes all traffic again."""
    reason: str = ""
    stage: Stage = Stage.PREPARE
    ticket: Ticket | None = None


class RollbackFlow:
    """One rollback; ``run`` may be started again from any journalled cursor."""

    def __init__(self, backend: Rollable, cursor: RollbackCursor) -> None:
        self._backend = backend
        self.cursor = cursor

    def run(self) -> Flow[RollbackCursor]:
        """Switch at once when the revision is still warm; make it ready again first when it is not."""
        try:
            if self.cursor.stage is Stage.PREPARE:
                yield from self._prepare()
            yield from self._switch()
        except FencedError:
            raise
        except ModelDeployError as error:
            # What may pass by itself leaves the operation to be taken up again.
            if not error.transient:
                yield Emit(Name.OPERATION_FAILED, {"outcome": str(error)}, Level.WARNING)
                yield Save(to_json(attrs.evolve(self.cursor, ticket=None)), Phase.FAILED, str(error))
            raise
        return self.cursor

    def _prepare(self) -> Flow[None]:
        # A ticket in this stage is the revision's: it is carried to its end even when the revision is ready by now.
        if self.cursor.ticket is not None or not (yield from self._is_ready()):
            yield from self._make_ready()
            yield from self._save(stage=Stage.SWITCH, ticket=None)

    def _switch(self) -> Flow[None]:
        name, table = self.cursor.endpoint.name, Traffic.all_to(self.cursor.revision.id)
        ticket = self.cursor.ticket or (yield from call("set traffic", lambda: self._backend.set_traffic(name, table)))
        # Not saved before: asking again for the same table is the same act.
        yield from carry(self._backend, ticket, save=self._save_switch)
        yield Emit(Name.TRAFFIC_CHANGED, {"traffic": dict(table.live)})
        fields = {"revision": self.cursor.revision.id, "reason": self.cursor.reason, "traffic": dict(table.live)}
        yield Emit(Name.ROLLOUT_ROLLED_BACK, fields, Level.WARNING)
        evidence = {"revision": to_json(self.cursor.revision)}
        entry = HistoryEntry("rolled-back", self.cursor.revision.id, self.cursor.reason, evidence)
        outcome = f"{self.cursor.revision.id} takes all traffic again"
        yield Emit(Name.OPERATION_SUCCEEDED, {"outcome": outcome})
        yield Save(to_json(attrs.evolve(self.cursor, ticket=None)), Phase.SUCCEEDED, outcome, entry)

    def _is_ready(self) -> Flow[bool]:
        name = self.cursor.endpoint.name
        state = yield from call("observe", lambda: self._backend.observe(name))
        found = state.revision(self.cursor.revision.id) if state else None
        return found is not None and found.ready

    def _make_ready(self) -> Flow[None]:
        spec, revision = self.cursor.endpoint, self.cursor.revision
        ticket = self.cursor.ticket
        if ticket is None:
            ticket = yield from call("start", lambda: self._backend.put_revision(spec, revision))
            yield from self._save(ticket=ticket)
        yield from carry(self._backend, ticket, save=self._save_ticket)
        if not (yield from self._is_ready()):
            message = f"revision {revision.id!r} was reported ready and is not"
            raise OperationFailed(message)

    def _save_switch(self, ticket: Ticket) -> Flow[Ticket]:
        yield from self._save(stage=Stage.SWITCH, ticket=ticket)
        return ticket

    def _save_ticket(self, ticket: Ticket) -> Flow[Ticket]:
        yield from self._save(ticket=ticket)
        return ticket

    def _save(self, **changes: Any) -> Flow[None]:
        self.cursor = attrs.evolve(self.cursor, **changes)
        yield Save(to_json(self.cursor))


def served(history: Iterable[HistoryLine]) -> list[Revision]:
    """Replay a history into the revisions that took all traffic, oldest first; the last is stable.

    A rollback takes revisions off the end, so that rolling back twice goes back two steps instead of to and fro.
    """
    stack: list[Revision] = []
    for line in history:
        entry = line.entry
        if entry.what == "deleted":
            stack.clear()
        elif entry.what in {"promoted", "rolled-back"}:
            revision = from_json(Revision, entry.evidence["revision"])
            names = [each.id for each in stack]
            if entry.what == "rolled-back" and revision.id in names:
                del stack[names.index(revision.id) + 1 :]
            else:
                stack = [*(each for each in stack if each.id != revision.id), revision]
    return stack


def target(history: Iterable[HistoryLine], *, endpoint: str, stable: str | None, to: str | None) -> Revision:
    """Find the revision to go back to: the one that took all traffic before stable, or the one that ``to`` names.

    ``to`` is a revision id or a model version. NotFoundError lists what there is.
    """
    lines = list(history)
    if to is not None:
        return _named(lines, endpoint, to)
    stack = served(lines)
    names = [revision.id for revision in stack]
    before = stack[: names.index(stable)] if stable in names else stack
    if not before:
        message = f"endpoint {endpoint!r} has no earlier revision to go back to"
        raise NotFoundError(message, hint="endpoint.history shows what took traffic so far")
    return before[-1]


def _named(history: list[HistoryLine], endpoint: str, to: str) -> Revision:
    known = [line.entry.evidence["revision"] for line in history if "revision" in line.entry.evidence]
    for revision in reversed(known):
        if to in {revision["id"], revision["model"]["version"]}:
            return from_json(Revision, revision)
    message = f"endpoint {endpoint!r} never had a revision {to!r}"
    raise NotFoundError(message, hint=f"its history holds {sorted({revision['id'] for revision in known})}")
