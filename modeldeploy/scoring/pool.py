"""Those who score, as the runner sees them: seats that take an order each, and what happens there."""

from __future__ import annotations

from typing import Protocol

import attrs

from modeldeploy.scoring.partwork import Done, Order, PartWork
from modeldeploy.scoring.worker import failure


@attrs.frozen
class Ready:
    """A worker has loaded the model; its seats are idle."""


@attrs.frozen
class Finished:
    """A part is scored; its files wait under temporary names."""

    order: Order
    done: Done


@attrs.frozen
class Failed:
    """A part, or loading the model, failed with an error."""

    order: Order | None
    kind: str
    message: str
    hint: str | None
    full: bool


@attrs.frozen
class Hand:
    """What a seat had in hand when its process died."""

    seat: int
    order: Order
    at: tuple[int, int] | None = None
    """The stretch of rows that the model had, first and past last; None outside of the model."""


@attrs.frozen
class Died:
    """A process is gone, with all that its seats had in hand."""

    hands: tuple[Hand, ...]
    how: str


Happening = Ready | Finished | Failed | Died


class Pool(Protocol):
    """Something that scores parts."""

    def start(self) -> int:
        """Add a worker; give how many seats it has, each of which scores one part at a time."""
        ...

    def idle(self) -> list[int]:
        """Name the seats that wait for an order."""
        ...

    def submit(self, seat: int, order: Order) -> None:
        """Give a part to an idle seat."""
        ...

    def wait(self, timeout: float) -> Happening | None:
        """Give what happened next; None when nothing did in so many seconds."""
        ...

    def dismiss(self) -> None:
        """Let all workers end at once, without waiting until they have; what they had in hand is scored again by the next run."""
        ...

    def close(self) -> None:
        """End all workers at once, and wait until they have ended."""
        ...


class InlinePool:
    """One worker with one seat that is this very process."""

    def __init__(self, work: PartWork) -> None:
        self._work = work
        self._order: Order | None = None
        self._started = False

    def start(self) -> int:
        """Add none: this process is there."""
        return 1

    def idle(self) -> list[int]:
        """Name the seat unless it has an order."""
        return [0] if self._started and self._order is None else []

    def submit(self, seat: int, order: Order) -> None:  # noqa: ARG002 - there is one
        """Remember the order; it is done while the runner waits."""
        self._order = order

    def wait(self, timeout: float) -> Happening | None:  # noqa: ARG002 - never waits
        """Do the order."""
        if not self._started:
            self._started = True
            return Ready()
        order, self._order = self._order, None
        if order is None:
            return None
        try:
            return Finished(order, self._work.run(order, lambda _start, _stop: None))
        except Exception as error:  # noqa: BLE001 - told to the runner, whatever it is
            return Failed(order, **failure(error))

    def dismiss(self) -> None:
        """Nothing runs beside this process."""

    def close(self) -> None:
        """Nothing runs beside this process."""
