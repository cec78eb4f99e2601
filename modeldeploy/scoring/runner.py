"""Runs one job to its end: hands out parts, checks them in, builds the output, publishes it.

Everything that was checked in before a kill is found again in the ledger, verified by its digest, and not scored again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable

from modeldeploy.errors import ModelDeployError, OperationFailed, QuotaError
from modeldeploy.scoring import durable, publish
from modeldeploy.scoring import plan as planning
from modeldeploy.scoring.assemble import Assembly
from modeldeploy.scoring.blame import Blame
from modeldeploy.scoring.job import RESULT, Job, Request, bad_name, data_name, temporary
from modeldeploy.scoring.layout import Layout
from modeldeploy.scoring.meter import Meter
from modeldeploy.scoring.partwork import Done
from modeldeploy.scoring.plan import Plan
from modeldeploy.scoring.pool import Died, Failed, Finished, Happening, Pool, Ready
from modeldeploy.scoring.quarantine import Quarantine
from modeldeploy.scoring.staff import PoolOf, Staff
from modeldeploy.scoring.worker import FULL
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.ticket import Phase

_LOOK = 0.2
"""Seconds between looks at a request to stop."""


def run(job: Job, pool_of: PoolOf) -> Phase:
    """Run a job whose lease this process holds; how it ended stands in its progress too."""
    meter = Meter(job)
    try:
        phase = _run(job, pool_of, meter)
    except ModelDeployError as error:
        return meter.end(Phase.FAILED, str(error))
    except OSError as error:
        return meter.end(Phase.FAILED, str(_explain(error, job)))
    except Exception as error:
        meter.end(Phase.FAILED, f"unexpected {type(error).__name__}: {error}")
        raise
    return phase


def _run(job: Job, pool_of: PoolOf, meter: Meter) -> Phase:
    job.reserve()
    request = job.request()
    ledger = job.ledger()
    if ledger.last("done") is None:
        if publish.is_ours(job, job.output):
            publish.finish(job, ledger)
        else:
            with Staff(job, request, pool_of) as staff:
                if not _Run(job, request, ledger, meter, staff=staff).score():
                    return meter.stopped()
                # While the workers end, which takes as long.
                job.clean()
    # And what an earlier run left.
    job.clean()
    return meter.succeed(ledger)


def _explain(error: OSError, job: Job) -> ModelDeployError:
    place = str(error.filename or job.parts)
    if error.errno not in FULL:
        return OperationFailed(
            f"{place!r} cannot be read or written: {error.strerror or error}", hint="correct it and run the job again"
        )
    return full(place, job)


def full(place: str, job: Job) -> QuotaError:
    """Describe a full disk, and what is not lost."""
    folder = next(path for path in [job.parts, *job.parts.parents] if path.exists())
    free = shutil.disk_usage(folder).free
    message = f"no space to write in {place!r} ({free / 1e6:,.0f} MB free)"
    hint = "the parts that are done are kept: free some space and run the job again; it goes on from there"
    return QuotaError(message, hint=hint, context={"job": job.name})


class _Run:
    """One run of a job."""

    def __init__(self, job: Job, request: Request, ledger: durable.Ledger, meter: Meter, *, staff: Staff) -> None:
        self._staff = staff
        self._job = job
        self._request = request
        self._ledger = ledger
        self._meter = meter
        self._plan = self._planned()
        self._layout: Layout = self._plan.layout(request.spec)
        self._done: dict[int, Done] = {}
        self._todo: dict[int, None] = {}
        self._bad = 0
        self._last: dict[int, int] = {}
        self._in_hand: set[int] = set()
        self._taken = 0
        self._blame = Blame(f"{os.getpid()}-{time.time_ns():x}")

    def score(self) -> bool:
        """Score what is missing and publish; False when it was asked to stop before the end."""
        publish.check_free(self._job, self._request)
        self._take_stock()
        assembly = None if self._plan.directory else Assembly(self._job, self._plan, self._layout.written)
        try:
            for part in sorted(self._done):
                self._offer(assembly, part)
            if self._todo and not self._score_parts(assembly):
                return False
            result = self._job.parts / RESULT if assembly is None else assembly.finish()
            publish.publish(self._job, self._request, self._ledger, result=result, quarantine=self._quarantine())
        finally:
            if assembly is not None:
                assembly.abandon()
        return True

    def _planned(self) -> Plan:
        """Take up the plan, or make it; files that changed since it was made are a conflict."""
        try:
            plan = self._job.plan()
        except FileNotFoundError:
            self._meter.note("looking at the input")
            plan = planning.make(self._request.spec)
            self._job.put_plan(plan)
        plan.check_inputs()
        return plan

    def _take_stock(self) -> None:
        """Find the parts that are done and whole; a torn or changed one is scored again."""
        folder = self._job.parts
        (folder / RESULT if self._plan.directory else folder).mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()
        for row in self._ledger.rows:
            if row["kind"] == "part":
                done = from_json(Done, row["done"])
                self._done[done.part] = done
        self._done = {part: done for part, done in self._done.items() if self._whole(done)}
        self._bad = sum(done.bad_rows for done in self._done.values())
        self._todo = dict.fromkeys(part.number for part in self._plan.parts if part.number not in self._done)
        self._meter.start(self._plan, self._done.values())

    def _whole(self, done: Done) -> bool:
        files = [(self._job.data(self._plan, done.part), done.sha256)]
        if done.bad_rows:
            files.append((self._job.parts / bad_name(done.part), done.bad_sha256))
        return all(path.exists() and durable.digest(path) == sha for path, sha in files)

    def _score_parts(self, assembly: Assembly | None) -> bool:
        self._check_limit()
        pool = self._staff.settle(len(self._todo))
        while self._in_hand or (self._todo and not self._job.stopping):
            self._hand_out(pool)
            happening = pool.wait(_LOOK)
            if happening is not None:
                self._heed(happening, assembly, pool)
            self._grow()
            if assembly is not None:
                assembly.check()
            self._meter.show()
        self._staff.dismiss()
        return not self._todo

    def _grow(self) -> None:
        if not self._job.stopping:
            self._staff.grow(waiting=sum(self._plan.parts[part].size for part in self._todo), taken=self._taken)

    def _hand_out(self, pool: Pool) -> None:
        for seat in pool.idle():
            if not self._todo or self._job.stopping:
                return
            part = pick(self._plan, self._todo, self._last.get(seat))
            del self._todo[part]
            self._last[seat] = part
            self._in_hand.add(part)
            self._taken += self._plan.parts[part].size
            pool.submit(seat, self._blame.order(part, self._allowed()))

    def _allowed(self) -> int | None:
        limit = self._request.spec.max_bad_rows
        return None if limit is None else max(0, limit - self._bad)

    def _heed(self, happening: Happening, assembly: Assembly | None, pool: Pool) -> None:
        match happening:
            case Ready():
                self._meter.ready()
                self._staff.ready()
            case Finished(done=done) if done.too_many:
                self._refuse(done)
            case Finished(done=done):
                self._blame.finished()
                self._bad += done.bad_rows
                # Its seat has the next part by the time that this one is on the disk.
                self._hand_out(pool)
                self._check_in(done)
                self._offer(assembly, done.part)
                self._check_limit()
            case Failed():
                raise self._failure(happening)
            case Died(hands=hands):
                back = {hand.order.part for hand in hands}
                self._in_hand -= back
                self._todo = dict.fromkeys(sorted([*self._todo, *back]))
                self._blame.died(happening, self._plan)

    def _check_in(self, done: Done) -> None:
        """Bring a part to the disk, give it its name, then write it down; a kill in between only means that it is scored again."""
        folder = self._job.parts
        if done.bad_rows:
            durable.settle(temporary(folder, bad_name(done.part), self._blame.run), folder / bad_name(done.part))
        durable.settle(
            temporary(folder, data_name(self._plan, done.part), self._blame.run), self._job.data(self._plan, done.part)
        )
        self._ledger.append({"kind": "part", "done": to_json(done)})
        self._done[done.part] = done
        self._in_hand.discard(done.part)
        self._meter.count(done)

    def _offer(self, assembly: Assembly | None, part: int) -> None:
        if assembly is not None:
            assembly.offer(part)

    def _check_limit(self) -> None:
        limit = self._request.spec.max_bad_rows
        if limit is not None and self._bad > limit:
            self._refuse(None)

    def _refuse(self, partial: Done | None) -> None:
        """Fail for too many bad rows, with what was found."""
        quarantine = self._quarantine(partial)
        path = quarantine.write()
        self._meter.quarantined(path)
        shown = "; ".join(quarantine.first(3))
        message = f"more than {self._request.spec.max_bad_rows} bad rows (max_bad_rows): {shown}"
        hint = f"all that were found are in {str(path)!r}; correct the input, or run again with a higher max_bad_rows: it goes on from here"
        raise OperationFailed(message, hint=hint)

    def _quarantine(self, partial: Done | None = None) -> Quarantine:
        return Quarantine(self._job, self._plan, self._done, partial=partial, run=self._blame.run)

    def _failure(self, failed: Failed) -> ModelDeployError:
        if failed.full:
            return full(failed.message, self._job)
        where = f"part {failed.order.part} of the input" if failed.order else f"model {str(self._request.spec.model)!r}"
        what = "could not be scored" if failed.order else "could not be loaded"
        return OperationFailed(f"{where} {what}: {failed.kind}: {failed.message}", hint=failed.hint)


def pick(plan: Plan, missing: Collection[int], last: int | None) -> int:
    """Choose a seat's next part: the one that goes on where its last one ended, else one that needs no skipping, else far from others."""
    if last is not None and last + 1 in missing and plan.parts[last + 1].skip:
        return last + 1
    fresh = next((part for part in missing if not plan.parts[part].skip), None)
    return fresh if fresh is not None else _middle(missing)


def _middle(missing: Iterable[int]) -> int:
    """Find the middle of the longest stretch, which leaves most room to whoever comes from its left."""
    stretches: list[list[int]] = []
    for part in missing:
        if stretches and stretches[-1][-1] + 1 == part:
            stretches[-1].append(part)
        else:
            stretches.append([part])
    longest = max(stretches, key=len)
    return longest[len(longest) // 2]
