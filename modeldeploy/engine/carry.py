"""Carry one ticket to its end: look, do the next step, wait, look again."""

from __future__ import annotations

from collections.abc import Callable

from modeldeploy.engine.effects import Emit, Flow, Sleep, call
from modeldeploy.errors import OperationCancelled, OperationFailed
from modeldeploy.spi import Backend
from modeldeploy.values.events import Level, Name
from modeldeploy.values.ticket import Phase, Ticket

_LEAST_WAIT = 0.005
_MOST_WAIT = 15.0
_BACKOFF = 1.5

TicketFlow = Callable[[Ticket], Flow[Ticket]]


def carry(backend: Backend, ticket: Ticket, *, save: TicketFlow, attend: TicketFlow | None = None) -> Flow[Ticket]:
    """Advance a ticket until it ended; OperationFailed or OperationCancelled when that end is not success.

    The caller has made the ticket durable already. ``save`` does so again whenever it reached another step; ``attend`` is asked before
    each look, so that the caller can answer to commands while the provider works.
    """
    quiet = _LEAST_WAIT
    while not ticket.phase.ended:
        if attend is not None:
            ticket = yield from attend(ticket)
        before, ticket = ticket, (yield from call(f"advance {ticket.action.value}", _advance(backend, ticket)))
        if ticket != before:
            yield Emit(Name.OPERATION_PROGRESS, _fields(ticket), Level.DEBUG)
        if ticket.phase.ended:
            break
        moved = ticket.step != before.step
        if moved:
            ticket = yield from save(ticket)
        quiet = _LEAST_WAIT if moved else min(quiet * _BACKOFF, _MOST_WAIT)
        yield Sleep(ticket.poll_after or quiet)
    _raise_unless_done(ticket)
    return ticket


def _advance(backend: Backend, ticket: Ticket) -> Callable[[], Ticket]:
    return lambda: backend.advance(ticket)


def _fields(ticket: Ticket) -> dict[str, object]:
    return {"action": ticket.action.value, "step": ticket.step, "fraction": ticket.fraction, "note": ticket.note}


def _raise_unless_done(ticket: Ticket) -> None:
    what = f"{ticket.action.value} of {ticket.target!r}"
    if ticket.phase is Phase.FAILED:
        message = f"{what} failed: {ticket.note or 'the provider gives no reason'}"
        raise OperationFailed(message)
    if ticket.phase is Phase.CANCELLED:
        message = f"{what} was cancelled"
        raise OperationCancelled(message)
