"""What a job's ledger says: which parts were sent, which transform jobs were asked for, what came back.

The ledger is the list of ``scoring.durable``: a line for each act, flushed to the disk. Each act is written down before it is done where
doing it twice would cost something, and after it where it would not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.cloud.shards import Slice
from modeldeploy.scoring.partwork import Done
from modeldeploy.values.codec import from_json

FAILED, TAKEN = "Failed", "Taken"
"""Two ends of an attempt: as the service says it, and that its name belongs to other work."""


@attrs.define
class Attempt:
    """A transform job over some slices."""

    number: int
    name: str
    slices: tuple[Slice, ...]
    status: str = ""
    """How it ended; empty while nobody saw its end."""
    reason: str = ""
    blames_rows: bool = False
    fruit: int = 0
    """How many of its slices came back."""
    at: float = 0.0
    """When it was asked for, in seconds since the epoch."""


@attrs.define
class State:
    """The ledger, read."""

    run: str = ""
    """Names the work in the bucket: the same for the same files and the same job."""
    most: int = 0
    """The most bytes that a row may have."""
    model: str = ""
    """The Model at the service, once this run has seen it there."""
    model_at: float = 0.0
    """When it was asked for, in seconds since the epoch."""
    sent: dict[int, Done] = attrs.field(factory=dict[int, Done])
    slices: dict[int, tuple[Slice, ...]] = attrs.field(factory=dict[int, "tuple[Slice, ...]"])
    outputs: dict[str, str] = attrs.field(factory=dict[str, str])
    """Name of a slice to the key of its answers."""
    poison: dict[Slice, str] = attrs.field(factory=dict[Slice, str])
    done: dict[int, Done] = attrs.field(factory=dict[int, Done])
    attempts: list[Attempt] = attrs.field(factory=list[Attempt])
    """Of this run of the job."""
    last: int = 0
    """The highest number of an attempt so far, in any run."""
    published: bool = False
    cleaned: bool = False

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> State:
        """Read the rows of a ledger."""
        state = cls()
        for row in rows:
            state.read(row)
        return state

    def read(self, row: Mapping[str, Any]) -> None:
        """Read one more row."""
        getattr(self, f"_read_{row['kind']}")(row)

    @property
    def open(self) -> Attempt | None:
        """The attempt whose end nobody saw yet."""
        return self.attempts[-1] if self.attempts and not self.attempts[-1].status else None

    def pending(self) -> list[Slice]:
        """List the slices that were sent and have no answer."""
        slices = [each for part in sorted(self.slices) if part not in self.done for each in self.slices[part]]
        return [each for each in slices if each.size and each.name not in self.outputs and each not in self.poison]

    def answered(self) -> list[int]:
        """Name the parts that came back whole and are not read yet."""
        waiting = {each.part for each in self.pending()}
        return [part for part in sorted(self.sent) if part not in self.done and part not in waiting]

    def bad_rows(self, *, but: int = -1) -> int:
        """Count the bad rows that are known, but those of one part."""
        known = {**self.sent, **self.done}
        return sum(done.bad_rows for part, done in known.items() if part != but)

    def strikes(self, one: Slice) -> int:
        """How often a transform job failed, rows being to blame, with this slice among those that did not come back."""
        return sum(
            attempt.status == FAILED and attempt.blames_rows and one in attempt.slices for attempt in self.attempts
        )

    # One reader for each kind of row.

    def _read_run(self, row: Mapping[str, Any]) -> None:
        self.run, self.most = row["id"], row["most"]

    def _read_begin(self, row: Mapping[str, Any]) -> None:
        self.model, self.attempts = "", []
        self.outputs = dict(row["outputs"])

    def _read_model(self, row: Mapping[str, Any]) -> None:
        self.model, self.model_at = row["name"], row["at"]

    def _read_sent(self, row: Mapping[str, Any]) -> None:
        done = from_json(Done, row["done"])
        self.sent[done.part] = done
        self.slices[done.part] = (Slice(done.part, 0, row["lines"]),)

    def _read_cut(self, row: Mapping[str, Any]) -> None:
        cut = Slice(*row["slice"])
        pieces = tuple(Slice(*each) for each in row["pieces"])
        kept = [pieces if each == cut else (each,) for each in self.slices[cut.part]]
        self.slices[cut.part] = tuple(each for group in kept for each in group)

    def _read_poison(self, row: Mapping[str, Any]) -> None:
        self.poison[Slice(*row["slice"])] = row["reason"]

    def _read_attempt(self, row: Mapping[str, Any]) -> None:
        self.last = row["number"]
        slices = tuple(Slice(*each) for each in row["slices"])
        self.attempts.append(Attempt(row["number"], row["name"], slices, at=row["at"]))

    def _read_ended(self, row: Mapping[str, Any]) -> None:
        self.outputs.update(row["outputs"])
        if not self.attempts:
            return
        attempt = self.attempts[-1]
        attempt.status, attempt.reason, attempt.blames_rows = row["status"], row["reason"], row["blames_rows"]
        attempt.fruit = sum(each.name in self.outputs for each in attempt.slices)

    def _read_part(self, row: Mapping[str, Any]) -> None:
        done = from_json(Done, row["done"])
        self.done[done.part] = done

    def _read_lost(self, row: Mapping[str, Any]) -> None:
        self.done.pop(row["part"], None)

    def _read_unsent(self, row: Mapping[str, Any]) -> None:
        self.sent.pop(row["part"], None)
        self.slices.pop(row["part"], None)

    def _read_publish(self, row: Mapping[str, Any]) -> None:
        del row

    def _read_done(self, row: Mapping[str, Any]) -> None:
        del row
        self.published = True

    def _read_cleaned(self, row: Mapping[str, Any]) -> None:
        del row
        self.cleaned = True
