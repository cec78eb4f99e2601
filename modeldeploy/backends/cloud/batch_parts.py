"""A job's parts: written down and sent, read and joined, put together and published; and the rows that are set aside."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from modeldeploy.backends.cloud.batch_state import State
from modeldeploy.backends.cloud.runs import Objects, Sizes
from modeldeploy.backends.cloud.shards import Receiver, Sender, Slice, read_answers, refusal
from modeldeploy.errors import ConflictError, OperationFailed
from modeldeploy.scoring import durable, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.assemble import Assembly
from modeldeploy.scoring.job import RESULT, Job, Request, bad_name, data_name, temporary
from modeldeploy.scoring.partwork import Done, Order, PartWork
from modeldeploy.scoring.plan import Part, Plan
from modeldeploy.scoring.predict import Predictor
from modeldeploy.scoring.quarantine import Quarantine
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.codec import to_json

MEBIBYTE = 1 << 20
IN = "in"
_MOST_PART = 64 * MEBIBYTE
"""About the most bytes that a part of numbers takes as lines; it is in memory once."""
_NUMBER = 20
"""About the bytes that a number takes."""


class Parts:
    """The parts of one job, as they stand now."""

    def __init__(self, job: Job, asked: Request, storage: Objects, *, terms: Sizes, place: str) -> None:
        self._job = job
        self._asked = asked
        self._storage = storage
        self._terms = terms
        self._prefix = place
        self._ledger = job.ledger()
        self._plan = self._planned()
        self._mark = f"{os.getpid()}-{time.time_ns():x}"
        self.state = State.of(self._ledger.rows)

    def _planned(self) -> Plan:
        try:
            return self._job.plan()
        except FileNotFoundError:
            spec = self._asked.spec
            rows = min(self._terms.rows_per_part, _MOST_PART // (_NUMBER * _width(spec)))
            size = min(spec.chunk_rows, max(1, rows // planning.PART_CHUNKS))
            plan = planning.make(attrs.evolve(spec, chunk_rows=size))
            self._job.put_plan(plan)
            return plan

    def check_inputs(self) -> None:
        """Raise ConflictError when a file changed since the job was planned."""
        self._plan.check_inputs()

    @property
    def plan(self) -> Plan:
        """The files and parts of the job."""
        return self._plan

    @property
    def acts(self) -> int:
        """How many acts the ledger holds."""
        return len(self._ledger.rows)

    @property
    def place(self) -> str:
        """The prefix in the bucket below which all of the job lies."""
        return self._key()

    @property
    def _most(self) -> int:
        # As it was when the first part was sent: what was refused then is refused when it is read again.
        return self.state.most

    def _key(self, *parts: str) -> str:
        return "/".join([self._prefix, self._job.name, self.state.run, *parts])

    def _note(self, kind: str, **row: Any) -> None:
        self._ledger.append({"kind": kind, **row})
        self.state.read(self._ledger.rows[-1])

    # There

    def unsent(self) -> Part | None:
        """Find the next part that is not in the bucket."""
        return next((part for part in self._plan.parts if part.number not in self.state.sent), None)

    def send(self, part: Part) -> None:
        """Write a part down as lines and bring it to the bucket; OperationFailed when too many of its rows are bad."""
        path = temporary(self._job.parts, f"part-{part.number:05}.sent", self._mark)
        with durable.removing(path):
            with path.open("wb") as out:
                sender = Sender(self._asked.spec.model.signature, out, most=self._most)
                done = self._score(part.number, sender, limit=self._allowed(part.number))
            temporary(self._job.parts, data_name(self._plan, part.number), self._mark).unlink(missing_ok=True)
            if sender.rows:
                self._put(Slice(part.number, 0, sender.rows), path.read_bytes())
        path.unlink()
        self._keep_bad(done)
        self._note("sent", done=to_json(done), lines=sender.rows)

    def _put(self, piece: Slice, data: bytes) -> None:
        self._storage.put(self._key(IN, piece.name), data, kind="application/jsonlines")

    def _score(self, part: int, model: Predictor, *, limit: int | None) -> Done:
        done = PartWork(model, self._job).run(Order(part, self._mark, limit), lambda _start, _stop: None)
        if done.too_many:
            raise self._refused(done)
        return done

    def _allowed(self, part: int) -> int | None:
        limit = self._asked.spec.max_bad_rows
        return None if limit is None else max(0, limit - self.state.bad_rows(but=part))

    def _keep_bad(self, done: Done) -> None:
        if done.bad_rows:
            folder = self._job.parts
            durable.rename(temporary(folder, bad_name(done.part), self._mark), folder / bad_name(done.part))

    # And back

    def receive(self, part: int) -> None:
        """Join what came back for a part to its rows, and check the part in."""
        answers = self._answers(part)
        receiver = Receiver(self._asked.spec.model.signature, answers, most=self._most)
        done = self._score(part, receiver, limit=self._allowed(part))
        if receiver.short or receiver.taken != len(answers):
            message = f"{len(answers)} rows of part {part} were sent, and another number of them is read now"
            raise ConflictError(message, hint="the input changed; run it again with overwrite=True")
        self._keep_bad(done)
        durable.rename(
            temporary(self._job.parts, data_name(self._plan, part), self._mark), self._job.data(self._plan, part)
        )
        self._note("part", done=to_json(done))

    def _answers(self, part: int) -> list[Any]:
        found: list[Any] = []
        for each in self.state.slices[part]:
            found += self._answers_of(each) if each.size else []
        return found

    def _answers_of(self, one: Slice) -> Sequence[Any]:
        if one in self.state.poison:
            return [refusal(self.state.poison[one])]
        answers = read_answers(self._storage.get(self.state.outputs[one.name]))
        if len(answers) != one.size:
            message = f"the container gave {len(answers)} lines for the {one.size} rows of {one.name!r}"
            raise OperationFailed(message, hint="an image must answer JSON Lines with one line for each")
        return answers

    def _whole(self, done: Done) -> bool:
        data = self._job.data(self._plan, done.part)
        return self._has_bad(done) and data.exists() and durable.digest(data) == done.sha256

    def _has_bad(self, done: Done) -> bool:
        path = self._job.parts / bad_name(done.part)
        return not done.bad_rows or (path.exists() and durable.digest(path) == done.bad_sha256)

    # The end

    def publish(self) -> None:
        """Put the parts together and give the result its name."""
        publish.check_free(self._job, self._asked)
        if publish.is_ours(self._job, self._job.output):
            publish.finish(self._job, self._ledger)
        else:
            self._publish()
        self.state = State.of(self._ledger.rows)

    def _publish(self) -> None:
        if self._plan.directory:
            result = self._job.parts / RESULT
        else:
            layout = self._plan.layout(self._asked.spec)
            assembly = Assembly(self._job, self._plan, layout.written)
            for part in self._plan.parts:
                assembly.offer(part.number)
            result = assembly.finish()
        publish.publish(self._job, self._asked, self._ledger, result=result, quarantine=self._quarantine())

    def clean(self, delete_model: Callable[[str], None]) -> None:
        """Take away what was made on the way: the objects of this job, its Model, the parts on this machine."""
        self._storage.delete([each.key for each in self._storage.below(self._key(""))])
        if self.state.model:
            delete_model(self.state.model)
        self._job.clean()
        self._note("cleaned")

    # Bad rows

    def _quarantine(self, partial: Done | None = None) -> Quarantine:
        known = {**self.state.sent, **self.state.done}
        return Quarantine(self._job, self._plan, known, partial=partial, run=self._mark)

    def _refused(self, partial: Done | None) -> OperationFailed:
        """Fail for too many bad rows, in the words of a job on this machine."""
        quarantine = self._quarantine(partial)
        path = quarantine.write()
        shown = "; ".join(quarantine.first(3))
        message = f"more than {self._asked.spec.max_bad_rows} bad rows (max_bad_rows): {shown}"
        hint = (
            f"all that were found are in {str(path)!r}; correct the input, or run again with a higher max_bad_rows: "
            "it goes on from here"
        )
        return OperationFailed(message, hint=hint)


def _width(spec: BatchSpec) -> int:
    """Count the numbers that a row of the model's input holds; an axis of any length counts once."""
    fields = spec.model.signature.inputs
    return sum(math.prod(size or 1 for size in field.shape) for field in fields)
