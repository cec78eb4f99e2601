"""Which row killed the process: what is known after each death, until it is one row."""

from __future__ import annotations

import attrs

from modeldeploy.errors import OperationFailed
from modeldeploy.scoring.partwork import Order
from modeldeploy.scoring.plan import Plan
from modeldeploy.scoring.pool import Died

IDLE_DEATHS = 3
"""Deaths in a row outside the model (while loading, reading or writing) after which the job fails."""
POISON = 50
"""So many rows that kill the process are not bad rows but a broken model."""


@attrs.define
class _Known:
    suspects: tuple[tuple[int, int], ...] = ()
    alone: int = -1
    """The row that the last process died with; guilty when the next one does too, for the first may have been killed from outside."""
    poison: dict[str, str] = attrs.field(factory=dict[str, str])


class Blame:
    """Remembers the deaths of one run."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._parts: dict[int, _Known] = {}
        self._idle = 0

    def order(self, part: int, limit: int | None) -> Order:
        """Give the order for a part with what is known about it."""
        known = self._parts.get(part, _Known())
        return Order(part, self.run, limit, known.suspects, dict(known.poison))

    def died(self, death: Died, plan: Plan) -> None:
        """Learn from a death; OperationFailed when there were too many."""
        accused = [(hand.order.part, hand.at) for hand in death.hands if hand.at is not None]
        if not accused:
            self._count_idle(death, plan)
            return
        self._idle = 0
        for part, rows in accused:
            self._accuse(part, rows, death.how, only=len(accused) == 1)
        self._check()

    def _accuse(self, part: int, rows: tuple[int, int], how: str, *, only: bool) -> None:
        """Learn that the model had these rows when its process died; with others at the same time, none of them is convicted."""
        known = self._parts.setdefault(part, _Known())
        first, last = rows
        single = only and last - first == 1
        if single and known.alone == first:
            known.poison[str(first)] = f"the process that scored it died ({how})"
            known.suspects = ()
        else:
            known.suspects = (rows,)
        known.alone = first if single else -1

    def finished(self) -> None:
        """Learn that a part was scored to its end."""
        self._idle = 0

    def _count_idle(self, death: Died, plan: Plan) -> None:
        self._idle += 1
        if self._idle < IDLE_DEATHS:
            return
        files = [plan.files[plan.parts[hand.order.part].file].path for hand in death.hands]
        where = f"while reading {files[0]!r}" if files else "while loading the model"
        message = f"the process that scores died {self._idle} times {where} ({death.how})"
        raise OperationFailed(
            message, hint="see the job's log; out of memory? try a smaller chunk_rows or fewer workers"
        )

    def _check(self) -> None:
        poison = sum(len(known.poison) for known in self._parts.values())
        if poison > POISON:
            message = f"{poison} rows killed the process that scored them"
            raise OperationFailed(
                message, hint="the model is broken here: try model.predict on one of the quarantined rows"
            )
