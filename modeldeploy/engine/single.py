"""The flow of an operation that is one ticket: deleting an endpoint, scoring a table."""

from __future__ import annotations

from typing import Any

import attrs

from modeldeploy.engine.carry import carry
from modeldeploy.engine.effects import Emit, Flow, Save, call, inbox
from modeldeploy.engine.record import HistoryEntry, Verb
from modeldeploy.errors import FencedError, ModelDeployError, OperationCancelled, UnsupportedError
from modeldeploy.spi import Backend
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Level, Name
from modeldeploy.values.ticket import Phase, Ticket


@attrs.frozen
class SingleCursor:
    """All that the operation must remember; the ticket is written before its first advance."""

    ticket: Ticket
    seen: int = 0
    history: HistoryEntry | None = None
    """What to write into the endpoint's history at the end, if it is about one."""


class SingleFlow:
    """Carry the ticket; hand a user's cancel to the backend."""

    def __init__(self, backend: Backend, cursor: SingleCursor) -> None:
        self._backend = backend
        self.cursor = cursor

    def run(self) -> Flow[Ticket]:
        """Go on until the ticket ended."""
        try:
            ticket = yield from carry(self._backend, self.cursor.ticket, save=self._save_ticket, attend=self._attend)
        except OperationCancelled as error:
            yield from self._end(Phase.CANCELLED, Name.OPERATION_CANCELLED, str(error))
            raise
        except FencedError:
            raise
        except ModelDeployError as error:
            # What may pass by itself leaves the operation to be taken up again.
            if not error.transient:
                yield from self._end(Phase.FAILED, Name.OPERATION_FAILED, str(error))
            raise
        yield from self._end(Phase.SUCCEEDED, Name.OPERATION_SUCCEEDED, ticket.note)
        return ticket

    def _attend(self, ticket: Ticket) -> Flow[Ticket]:
        for command in (yield from inbox(self.cursor.seen)):
            if command.verb in {Verb.CANCEL, Verb.ABORT}:
                ticket = yield from self._cancel(ticket)
            yield from self._save(seen=command.number, ticket=ticket)
        return ticket

    def _cancel(self, ticket: Ticket) -> Flow[Ticket]:
        try:
            return (yield from call("cancel", lambda: self._backend.cancel(ticket)))
        except UnsupportedError as error:
            yield Emit(Name.OPERATION_PROGRESS, {"note": f"goes on: {error}"}, Level.WARNING)
            return ticket

    def _save_ticket(self, ticket: Ticket) -> Flow[Ticket]:
        yield from self._save(ticket=ticket)
        return ticket

    def _save(self, **changes: Any) -> Flow[None]:
        self.cursor = attrs.evolve(self.cursor, **changes)
        yield Save(to_json(self.cursor))

    def _end(self, phase: Phase, name: Name, outcome: str) -> Flow[None]:
        yield Emit(name, {"outcome": outcome}, Level.INFO if phase is Phase.SUCCEEDED else Level.WARNING)
        history = self.cursor.history if phase is Phase.SUCCEEDED else None
        yield Save(to_json(self.cursor), phase, outcome, history)
