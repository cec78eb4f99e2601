"""How far a job is, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import attrs

from modeldeploy.scoring import durable
from modeldeploy.scoring.job import Job, Progress
from modeldeploy.scoring.partwork import Done
from modeldeploy.scoring.plan import Plan
from modeldeploy.values.ticket import Phase

_EVERY = 0.2


class Meter:
    """Counts what is durable and shows it to other processes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sizes: dict[int, int] = {}
        self._whole = self._sized = self._sized_now = self._rows_now = 0
        self._began = self._shown = time.monotonic()
        self._progress = Progress(note="starting")
        self._job.show(self._progress)

    def note(self, text: str) -> None:
        """Say what is going on."""
        self._progress = attrs.evolve(self._progress, note=text)
        self._job.show(self._progress)

    def start(self, plan: Plan, done: Iterable[Done]) -> None:
        """Take up a plan of which some parts are done."""
        self._sizes = {part.number: part.size for part in plan.parts}
        self._whole = sum(self._sizes.values())
        self._progress = attrs.evolve(self._progress, rows_total=plan.rows, note="loading the model")
        for each in done:
            self._add(each)
        self._show()

    def ready(self) -> None:
        """Start the clock: the first worker has loaded the model."""
        if self._progress.note == "loading the model":
            self._began = time.monotonic()
            self.note("scoring")

    def count(self, done: Done) -> None:
        """Add a part that became durable in this run."""
        self._add(done)
        self._sized_now += self._sizes[done.part]
        self._rows_now += done.rows_in
        spent = max(time.monotonic() - self._began, 1e-6)
        left = (self._whole - self._sized) * spent / max(self._sized_now, 1)
        self._progress = attrs.evolve(self._progress, rows_per_second=self._rows_now / spent, seconds_left=left)

    def _add(self, done: Done) -> None:
        self._sized += self._sizes[done.part]
        self._progress = attrs.evolve(
            self._progress,
            rows_done=self._progress.rows_done + done.rows_in,
            bad_rows=self._progress.bad_rows + done.bad_rows,
            fraction=self._sized / self._whole if self._whole else 1.0,
        )

    def show(self) -> None:
        """Show it, a few times a second."""
        if time.monotonic() - self._shown >= _EVERY:
            self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._job.show(self._progress)

    def quarantined(self, path: Path) -> None:
        """Say where the bad rows lie."""
        self._progress = attrs.evolve(self._progress, quarantine=str(path))

    def stopped(self) -> Phase:
        """Say that the job stopped before its end: cancelled if that was asked for, else to be taken up again."""
        if self._job.cancelled:
            return self.end(Phase.CANCELLED, "stopped; what is done is kept")
        self.note("interrupted")
        return Phase.RUNNING

    def succeed(self, ledger: durable.Ledger) -> Phase:
        """Say that the output is there."""
        row = ledger.last("done") or {}
        self._progress = attrs.evolve(
            self._progress, rows_done=row["rows_in"], rows_total=row["rows_in"], bad_rows=row["bad_rows"], fraction=1.0,
            seconds_left=0.0, quarantine=str(self._job.quarantine) if row["bad_rows"] else None,
        )  # fmt: skip
        return self.end(Phase.SUCCEEDED, "done")

    def end(self, phase: Phase, note: str) -> Phase:
        """Say how the job ended."""
        self._progress = attrs.evolve(self._progress, phase=phase, note=note)
        self._job.show(self._progress)
        return phase
