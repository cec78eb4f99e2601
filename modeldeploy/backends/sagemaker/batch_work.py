"""The next step of a job: send a part, ask for a transform job, look at it, read what came back, publish.

What is to be done follows from the ledger and from what lies in the bucket, never from memory, so whoever looks next goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.backends.sagemaker.batch_state import TAKEN, Attempt, State
from modeldeploy.backends.sagemaker.shards import Receiver, Sender, Slice, read_answers, refusal
from modeldeploy.backends.sagemaker.storage import Storage
from modeldeploy.backends.sagemaker.transform import Seen, Setting, Transforms, request
from modeldeploy.errors import ConflictError, OperationFailed
from modeldeploy.scoring import durable, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.assemble import Assembly
from modeldeploy.scoring.job import RESULT, Job, Request, bad_name, content, data_name
from modeldeploy.scoring.partwork import Done, Order, PartWork, temporary
from modeldeploy.scoring.plan import Part, Plan
from modeldeploy.scoring.predict import Predictor
from modeldeploy.scoring.quarantine import Quarantine
from modeldeploy.values.codec import to_json
from modeldeploy.values.names import short_hash

PIECES = 256
"""A slice that makes a transform job fail is cut into so many: two more jobs lead from 65,536 rows to the one row."""
TRIES = 3
"""Transform jobs that may fail one after another by no fault of the rows."""
POISON = 50
"""So many rows that make transform jobs fail are not bad rows but a broken model."""
STRIKES = 2
"""A single row is to blame when it failed so often."""
_MEBIBYTE = 1 << 20
_LISTS, _IN, _OUT = "lists", "in", "out"


class Work:
    """One job, as it stands now."""

    def __init__(
        self, job: Job, asked: Request, storage: Storage, transforms: Transforms, *, setting: Setting, place: str
    ) -> None:
        self._job = job
        self._asked = asked
        self._storage = storage
        self._transforms = transforms
        self._setting = setting
        self._terms = setting.terms
        self._prefix = place
        self._ledger = job.ledger()
        self._plan = self._planned()
        self._mark = f"{os.getpid()}-{time.time_ns():x}"
        self.state = State.of(self._ledger.rows)

    # What is known

    def _planned(self) -> Plan:
        try:
            plan = self._job.plan()
        except FileNotFoundError:
            size = min(self._asked.spec.chunk_rows, max(1, self._terms.rows_per_part // planning.PART_CHUNKS))
            plan = planning.make(attrs.evolve(self._asked.spec, chunk_rows=size))
            self._job.put_plan(plan)
        plan.check_inputs()
        return plan

    @property
    def plan(self) -> Plan:
        """The files and parts of the job."""
        return self._plan

    def _note(self, kind: str, **row: Any) -> None:
        self._ledger.append({"kind": kind, **row})
        self.state = State.of(self._ledger.rows)

    @property
    def acts(self) -> int:
        """How many acts the ledger holds."""
        return len(self._ledger.rows)

    @property
    def _most(self) -> int:
        # As it was when the first part was sent: what was refused then is refused when it is read again.
        return self.state.most

    @property
    def place(self) -> str:
        """The prefix in the bucket below which all of the job lies."""
        return self._key()

    def _key(self, *parts: str) -> str:
        return "/".join([self._prefix, self._job.name, self.state.run, *parts])

    # Steps, in the order in which they are looked at

    def begin(self) -> None:
        """Begin a run: what came back in an earlier one is found again, parts that were damaged are read again."""
        folder = self._job.parts
        (folder / RESULT if self._plan.directory else folder).mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()
        if not self.state.run:
            files = [f"{file.path} {file.size} {file.mtime_ns}" for file in self._plan.files]
            most = self._terms.max_payload_mb * _MEBIBYTE
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

    def _whole(self, done: Done) -> bool:
        data = self._job.data(self._plan, done.part)
        return self._has_bad(done) and data.exists() and durable.digest(data) == done.sha256

    def _has_bad(self, done: Done) -> bool:
        path = self._job.parts / bad_name(done.part)
        return not done.bad_rows or (path.exists() and durable.digest(path) == done.bad_sha256)

    def _outputs(self) -> dict[str, str]:
        """Find what came back: an object for each slice, whose name ends like the slice's, below the place of outputs."""
        if not self.state.run:
            return {}
        found = (each.key for each in self._storage.below(self._key(_OUT, "")))
        return {Path(key).name.removesuffix(".out"): key for key in found if key.endswith(".out")}

    def use(self, model: str) -> None:
        """Remember that the Model is there."""
        self._note("model", name=model)

    def look(self) -> Seen | None:
        """Look at the transform job that is under way, asking for it again where that was lost; None when there is none, or not any more."""
        attempt = self.state.open
        if attempt is None:
            return None
        seen = self._transforms.see(attempt.name)
        fresh = seen is None
        if seen is None:
            try:
                seen = self._transforms.create(self._request(attempt))
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
        self._storage.put(self._key(_IN, piece.name), data, kind="application/jsonlines")

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

    def full(self) -> bool:
        """Whether enough parts wait for a transform job of their own."""
        return len({each.part for each in self.state.pending()}) >= self._terms.parts_per_job

    def try_next(self) -> Attempt:
        """Ask for the next transform job; OperationFailed when another one would be no use."""
        self._learn()
        parts = sorted({each.part for each in self.state.pending()})[: self._terms.parts_per_job]
        slices = [each for each in self.state.pending() if each.part in parts]
        # The list first: whoever finds the attempt written down may ask for it at once.
        listed = orjson.dumps([{"prefix": f"{self._storage.url(self._key(_IN))}/"}, *(each.name for each in slices)])
        self._storage.put(self._list(slices), listed, kind="application/json")
        number = self.state.last + 1
        name = f"{self._job.name}-{self.state.run}-{number:03}"
        rows = [attrs.astuple(each) for each in slices]
        self._note("attempt", number=number, name=name, slices=rows, at=time.time())
        return self.state.attempts[-1]

    def _list(self, slices: Sequence[Slice]) -> str:
        return self._key(_LISTS, f"{short_hash(*(each.name for each in slices))}.json")

    def _request(self, attempt: Attempt) -> dict[str, Any]:
        payload = max(self._terms.max_payload_mb, self.state.most // _MEBIBYTE)
        setting = attrs.evolve(
            self._setting,
            terms=attrs.evolve(self._terms, max_payload_mb=payload),
            instances=max(1, min(self._asked.spec.workers, len(attempt.slices))),
        )
        source, output = self._storage.url(self._list(attempt.slices)), self._storage.url(self._key(_OUT))
        return request(attempt.name, self.state.model, source=source, output=output, setting=setting)

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
            whole = self._storage.get(self._key(_IN, one.name))
            pieces = one.cut(PIECES)
            for piece in pieces:
                self._put(piece, piece.of(whole, one.start))
            self._note("cut", slice=attrs.astuple(one), pieces=[attrs.astuple(each) for each in pieces])
        elif self.state.strikes(one) >= STRIKES:
            self._note("poison", slice=attrs.astuple(one), reason=f"the container failed on it: {last.reason}")
            if len(self.state.poison) > POISON:
                raise self._gave_up(last, "the model is broken here: try model.predict on one of the quarantined rows")

    def _gave_up(self, last: Attempt, hint: str) -> OperationFailed:
        said = self._transforms.lines(last.name)
        log = (
            f"; its log ends: {' | '.join(said[-5:])}" if said else "; it wrote no log, so its container never started"
        )
        message = f"transform job {last.name!r} ended as {last.status}: {last.reason or 'no reason given'}{log}"
        return OperationFailed(message, hint=hint)

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

    def stop(self) -> None:
        """Ask the transform job that is under way to stop, if there is one."""
        attempt = self.state.open
        if attempt is not None:
            self._transforms.stop(attempt.name)

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
