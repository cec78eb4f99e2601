"""The next step of a job: send a part, ask for a transform job, look at it, read what came back, publish.

What is to be done follows from the ledger and from what lies in the bucket, never from memory, so whoever looks next goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from modeldeploy.backends.cloud.batch_parts import IN, MEBIBYTE, Parts
from modeldeploy.backends.cloud.batch_state import TAKEN, Attempt
from modeldeploy.backends.cloud.runs import Look, Objects, Order, Runs, Sizes
from modeldeploy.backends.cloud.shards import Slice
from modeldeploy.errors import ConflictError, OperationFailed
from modeldeploy.scoring.job import RESULT, Job, Request, content
from modeldeploy.values.names import short_hash

PIECES = 256
"""A slice that makes a transform job fail is cut into so many: two more jobs lead from 65,536 rows to the one row."""
TRIES = 3
"""Transform jobs that may fail one after another by no fault of the rows."""
POISON = 50
"""So many rows that make transform jobs fail are not bad rows but a broken model."""
STRIKES = 2
"""A single row is to blame when it failed so often."""
_LISTS, _OUT = "lists", "out"


class Work(Parts):
    """One job, as it stands now."""

    def __init__(self, job: Job, asked: Request, storage: Objects, runs: Runs, *, terms: Sizes, place: str) -> None:
        super().__init__(job, asked, storage, terms=terms, place=place)
        self._runs = runs

    @property
    def word(self) -> str:
        """What the service calls a run."""
        return self._runs.word

    # Steps, in the order in which they are looked at

    def begin(self) -> None:
        """Begin a run: what came back in an earlier one is found again, parts that were damaged are read again."""
        self.check_inputs()
        folder = self._job.parts
        (folder / RESULT if self._plan.directory else folder).mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()
        if not self.state.run:
            files = [f"{file.path} {file.size} {file.mtime_ns}" for file in self._plan.files]
            most = self._terms.max_payload_mb * MEBIBYTE
            self._note("run", id=short_hash(content(self._asked.spec), *files), most=most)
        for part, done in list(self.state.done.items()):
            if not self._whole(done):
                self._note("lost", part=part)
        for part, done in list(self.state.sent.items()):
            if part not in self.state.done and not self._has_bad(done):
                self._note("unsent", part=part)
        self._note("begin", outputs=self._outputs())
        limit = self._asked.spec.max_bad_rows
        if limit is not None and self.state.bad_rows() > limit:
            raise self._refused(None)

    def _outputs(self) -> dict[str, str]:
        """Find what came back: an object for each slice, whose name ends like the slice's, below the place of outputs."""
        if not self.state.run:
            return {}
        found = (each.key for each in self._storage.below(self._key(_OUT, "")))
        return {Path(key).name.removesuffix(".out"): key for key in found if key.endswith(".out")}

    def use(self, model: str) -> None:
        """Remember that the Model is there."""
        self._note("model", name=model, at=time.time())

    def look(self) -> Look | None:
        """Look at the transform job that is under way, asking for it again where that was lost; None when there is none, or not any more."""
        attempt = self.state.open
        if attempt is None:
            return None
        seen = self._runs.see(attempt.name)
        fresh = seen is None
        if seen is None:
            try:
                seen = self._runs.create(self._order(attempt.name, attempt.slices))
            except ConflictError as error:
                self._end(attempt, TAKEN, str(error))
                return None
        if not seen.status.ended:
            return seen
        # One that had ended before it was asked for is an old one of the same work; whatever it left is of use.
        self._end(attempt, TAKEN if fresh else seen.status.value, seen.reason, blames_rows=seen.blames_rows)
        return None

    def _end(self, attempt: Attempt, status: str, reason: str, *, blames_rows: bool = False) -> None:
        self._note(
            "ended",
            number=attempt.number,
            status=status,
            reason=reason,
            blames_rows=blames_rows,
            outputs=self._outputs(),
        )

    def full(self) -> bool:
        """Whether enough parts wait for a transform job of their own."""
        return len({each.part for each in self.state.pending()}) >= self._terms.parts_per_job

    def try_next(self) -> Attempt:
        """Ask for the next transform job; OperationFailed when another one would be no use."""
        self._learn()
        parts = sorted({each.part for each in self.state.pending()})[: self._terms.parts_per_job]
        slices = [each for each in self.state.pending() if each.part in parts]
        number = self.state.last + 1
        name = f"{self._job.name}-{self.state.run}-{number:03}"
        # First what it needs: whoever finds the attempt written down may ask for it at once.
        self._runs.prepare(self._order(name, slices))
        rows = [attrs.astuple(each) for each in slices]
        self._note("attempt", number=number, name=name, slices=rows, at=time.time())
        return self.state.attempts[-1]

    def _order(self, name: str, slices: Sequence[Slice]) -> Order:
        names = tuple(each.name for each in slices)
        return Order(
            name,
            self.state.model,
            names,
            source=self._key(IN),
            listing=self._key(_LISTS, short_hash(*names)),
            output=self._key(_OUT),
            payload_mb=max(self._terms.max_payload_mb, self.state.most // MEBIBYTE),
            instances=max(1, min(self._asked.spec.workers, len(slices))),
        )

    def _learn(self) -> None:
        """Learn from the last transform job what to do differently; OperationFailed when there is nothing."""
        last = self.state.attempts[-1] if self.state.attempts else None
        if last is None or last.status == TAKEN or last.fruit == len(last.slices):
            return
        if not last.blames_rows:
            self._check_tries()
            return
        if self._allowed(-1) == 0:
            raise self._gave_up(last, "if rows make it fail, max_bad_rows= lets them be found and set aside")
        if not any(each.fruit for each in self.state.attempts[-2:]) and len(self.state.attempts) > 1:
            raise self._gave_up(last, "no row at all was scored: does the model run in this image?")
        for each in [each for each in last.slices if each in self.state.pending()]:
            self._accuse(each, last)

    def _check_tries(self) -> None:
        recent = self.state.attempts[-TRIES:]
        if len(recent) == TRIES and not any(each.fruit for each in recent):
            raise self._gave_up(recent[-1], "run the same job again later: it goes on from here")

    def _accuse(self, one: Slice, last: Attempt) -> None:
        if one.size > 1:
            whole = self._storage.get(self._key(IN, one.name))
            pieces = one.cut(PIECES)
            for piece in pieces:
                self._put(piece, piece.of(whole, one.start))
            self._note("cut", slice=attrs.astuple(one), pieces=[attrs.astuple(each) for each in pieces])
        elif self.state.strikes(one) >= STRIKES:
            self._note("poison", slice=attrs.astuple(one), reason=f"the container failed on it: {last.reason}")
            if len(self.state.poison) > POISON:
                raise self._gave_up(last, "the model is broken here: try model.predict on one of the quarantined rows")

    def _gave_up(self, last: Attempt, hint: str) -> OperationFailed:
        said = self._runs.lines(last.name)
        log = (
            f"; its log ends: {' | '.join(said[-5:])}" if said else "; it wrote no log, so its container never started"
        )
        message = f"{self.word} {last.name!r} ended as {last.status}: {last.reason or 'no reason given'}{log}"
        return OperationFailed(message, hint=hint)
