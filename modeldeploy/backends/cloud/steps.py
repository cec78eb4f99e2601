"""Where a ticket stands, as its one line of text, so that whoever reads the journal goes on from there."""

from __future__ import annotations

import attrs

from modeldeploy.values.ticket import Ticket


@attrs.frozen
class Step:
    """The name of a step, and what it must remember."""

    name: str
    about: str = ""
    """The name of what was made, or the position of an upload."""
    at: float = 0.0
    """When the service was asked, in seconds since the epoch."""

    @classmethod
    def of(cls, ticket: Ticket) -> Step:
        """Read the step of a ticket."""
        name, _, rest = ticket.step.partition(" ")
        at, _, about = rest.partition(" ")
        return cls(name, about, float(at or 0.0))

    def __str__(self) -> str:
        return f"{self.name} {self.at:.3f} {self.about}" if self.about or self.at else self.name


def moved(ticket: Ticket, step: Step, *, note: str = "", fraction: float | None = None) -> Ticket:
    """Give the ticket at another step, to be looked at again at once."""
    return attrs.evolve(ticket, step=str(step), note=note, fraction=fraction, poll_after=0.0)


def waiting(ticket: Ticket, seconds: float, note: str) -> Ticket:
    """Give the ticket where it is, to be looked at again in so many seconds."""
    return attrs.evolve(ticket, note=note, poll_after=seconds)
