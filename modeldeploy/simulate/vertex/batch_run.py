"""Does the work of a batch prediction job: its instances go to real model servers, a batch at a time."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.processes import Child
from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.batch_job import CANCELLED, FAILED, PARTIALLY, SUCCEEDED, Job
from modeldeploy.simulate.vertex.batch_output import Failure, Names, Output, line
from modeldeploy.simulate.vertex.batch_rows import Row, files, rows
from modeldeploy.simulate.vertex.errors import ServiceError, invalid
from modeldeploy.simulate.vertex.objects import Objects, place_of
from modeldeploy.simulate.vertex.replicas import Replicas
from modeldeploy.simulate.vertex.world import StoppedError, World

_log = logging.getLogger(__name__)
_OK = 200
_GONE, _LATE = 503, 504
_RETRIES = 3
_TIMEOUT_S = 600.0
_DEFAULT_BATCH = 64
# After so many batches, a job whose batches mostly fail is given up.
_ENOUGH = 8
_JSON = {"Content-Type": "application/json"}


@attrs.define(eq=False)
class Progress:
    """What the workers of a job share: the answers by the number of the batch, and what failed."""

    batches: Sequence[Sequence[Row]]
    answers: dict[int, list[bytes]] = attrs.field(factory=dict)
    failures: dict[int, list[Failure]] = attrs.field(factory=dict)
    next: int = 0
    lost: int = 0
    """How many batches failed as a whole."""
    given_up: bool = False
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def take(self) -> int | None:
        """Give the number of a batch that nobody works on; None when there is none, or no use in it."""
        with self.lock:
            done = len(self.answers) + self.lost
            self.given_up = self.given_up or (done >= _ENOUGH and self.lost > done // 2)
            if self.given_up or self.next >= len(self.batches):
                return None
            self.next += 1
            return self.next - 1

    def done(self, number: int, lines: list[bytes], failures: list[Failure], *, lost: bool) -> None:
        """Keep what came of a batch."""
        with self.lock:
            if lost:
                self.lost += 1
            else:
                self.answers[number] = lines
            if failures:
                self.failures[number] = failures

    def lines(self) -> list[bytes]:
        """Give the predictions in the order of their instances."""
        return [each for number in sorted(self.answers) for each in self.answers[number]]

    def failed(self) -> list[Failure]:
        """Give what failed in the order of the instances."""
        return [each for number in sorted(self.failures) for each in self.failures[number]]


@attrs.define(eq=False)
class Runner:
    """Runs jobs; every process ends with its job."""

    world: World
    objects: Objects
    replicas: Replicas
    names: Names
    processes: int
    """How many processes work on a job at a time at most."""

    def run(self, job: Job) -> None:
        """Run a job from its start to its end."""
        try:
            self._run(job)
        except StoppedError:
            self._stopped(job)
        except ServiceError as error:
            job.become(FAILED, error)
        except Exception as error:  # noqa: BLE001 - a job ends in some state, whatever happens
            _log.exception("the simulator failed")
            job.become(FAILED, ServiceError("INTERNAL", f"The simulator failed: {error}"))

    def _stopped(self, job: Job) -> None:
        if self.world.stopping.is_set():
            raise StoppedError
        job.become(CANCELLED, ServiceError("CANCELLED", "The job was cancelled."))

    def _pass(self, job: Job, seconds: float) -> None:
        if self.world.clock.wait(seconds, job.stop):
            raise StoppedError

    def _run(self, job: Job) -> None:
        self._pass(job, self.world.timings.job)
        if self.world.faults.once("broken_jobs"):
            raise ServiceError("INTERNAL", "The job failed in this rehearsal because it was asked to.")
        output = self._output(job)
        job.become("RUNNING")
        found, left_out = self._rows(job)
        size = int(job.message.manual_batch_tuning_parameters.batch_size) or _DEFAULT_BATCH
        progress = Progress([found[begin : begin + size] for begin in range(0, len(found), size)])
        begun = time.monotonic()
        try:
            self._spread(job, progress)
        finally:
            self._deliver(job, output, progress, len(found), time.monotonic() - begun)
        if job.stop.is_set():
            raise StoppedError
        self._pass(job, self.world.timings.finalize)
        self._end(job, progress, partly=left_out)

    def _output(self, job: Job) -> Output:
        """Settle where the output goes; an error when there is no such bucket."""
        prefix = job.message.output_config.gcs_destination.output_uri_prefix
        bucket = place_of(prefix)[0]
        if bucket not in self.objects.buckets:
            raise ServiceError("NOT_FOUND", f"The bucket of {prefix} does not exist.")
        folder = self.names.folder(prefix, job.plan.title or "unmanaged", self.world.clock.now())
        job.message.output_info = {"gcs_output_directory": folder}
        return Output(self.objects, self.names, folder)

    def _rows(self, job: Job) -> tuple[list[Row], bool]:
        """Read all instances, and say whether files were left out; an error when there are none to be read."""
        config, form, found, errors = job.message.input_config, job.message.input_config.instances_format, [], 0
        for uri in config.gcs_source.uris:
            try:
                for file in files(self.objects, uri):
                    found += list(rows(file, form, job.message.instance_config))
            except ServiceError as error:
                job.fail_partly(error)
                errors += 1
        if not found:
            raise invalid(f"There are no instances in {', '.join(config.gcs_source.uris)}.")
        return found, errors > 0

    # Predicting.

    def _spread(self, job: Job, progress: Progress) -> None:
        resources = job.message.dedicated_resources
        wanted = int(resources.max_replica_count or resources.starting_replica_count or self.processes)
        count = max(1, min(wanted, self.processes, len(progress.batches)))
        with ThreadPoolExecutor(count, thread_name_prefix="batch") as threads:
            for each in [threads.submit(self._share, job, progress) for _number in range(count)]:
                each.result()

    def _share(self, job: Job, progress: Progress) -> None:
        """Do batches until there are no more."""
        log = functools.partial(self.replicas.logbook.write, "", "", job=job.id)
        worker: Child | None = None
        try:
            while not job.stop.is_set() and (number := progress.take()) is not None:
                worker = worker or self._worker(job, log)
                if not self._batch(job, progress, number, worker):
                    job.release(worker)
                    worker = None
        finally:
            if worker is not None:
                job.release(worker)

    def _worker(self, job: Job, log: Callable[[str], None]) -> Child:
        worker = self.replicas.single(job.plan, log, job.stop)
        job.hire(worker, self.replicas.stop)
        return worker

    def _batch(self, job: Job, progress: Progress, number: int, worker: Child) -> bool:
        """Do one batch, and say whether its worker can do another.

        Rows that cannot be sent fail by themselves, those that are sent together fail together.
        """
        batch = progress.batches[number]
        failures = [Failure([row], row.error or _DROPPED) for row in batch if row.error or self._drops()]
        unsent = {id(row) for each in failures for row in each.rows}
        sent = [row for row in batch if id(row) not in unsent]
        answers, reason, well = self._asked(job, worker, sent) if sent else ([], "", True)
        if reason:
            failures.append(Failure(sent, reason))
        lines = [line({**row.told, "prediction": each}) for row, each in zip(sent, answers, strict=False)]
        progress.done(number, lines, failures, lost=bool(reason))
        return well

    def _drops(self) -> bool:
        return self.world.faults.nth("drop_rows_every")

    def _asked(self, job: Job, worker: Child, sent: Sequence[Row]) -> tuple[list[Any], str, bool]:
        """Send instances to a model server until it answers well.

        Gives its predictions, why there are none, and whether it can be asked again; a process that is about to end may not have ended yet.
        """
        body = orjson.dumps({"instances": [row.instance for row in sent], **_parameters(job)})
        route = self.replicas.contract.start(job.plan).predict
        status, well, begun = 0, True, time.monotonic()
        for _attempt in range(_RETRIES + 1):
            if job.stop.is_set():
                raise StoppedError
            try:
                reply = worker.line.ask("POST", route, _JSON, body, _TIMEOUT_S)
            except TimeoutError:
                status, well = _LATE, False
                continue
            except ConnectionError:
                status, well = _GONE, False
                continue
            status, well = reply.status, True
            if status == _OK:
                return *_predictions(reply.body, len(sent)), well
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        reason = (
            f"Post request fails. Cannot get predictions. Error: Exceeded retries: Non-OK result {status} ({phrase}) "
            f"from server, retry={_RETRIES}, elapsed={time.monotonic() - begun:.2f}s."
        )
        return [], reason, well

    # The end.

    def _deliver(self, job: Job, output: Output, progress: Progress, total: int, seconds: float) -> None:
        """Write what there is, also of a job that is cancelled."""
        lines, failures = progress.lines(), progress.failed()
        files_wanted = max(1, min(self.processes, len(progress.answers)))
        size = max(1, -(-len(lines) // files_wanted))
        parts = [lines[begin : begin + size] for begin in range(0, len(lines), size)] or [[]]
        output.write(parts, failures, self.world.clock.now())
        failed = sum(len(each.rows) for each in failures)
        job.count(len(lines), failed, total - len(lines) - failed)
        with self.world.lock:
            hours = seconds * self.world.speed / 3_600
            job.message.resources_consumed = proto.v1().ResourcesConsumed(replica_hours=hours)

    @staticmethod
    def _end(job: Job, progress: Progress, *, partly: bool) -> None:
        """Say how it went: well also when some rows failed, as long as every one was tried."""
        stats = job.message.completion_stats
        if not stats.successful_count:
            reason = next((each.reason for each in progress.failed()), "There is nothing to predict.")
            job.become(FAILED, ServiceError("INTERNAL", reason))
        else:
            job.become(PARTIALLY if partly or stats.incomplete_count else SUCCEEDED)


_DROPPED = "The model server did not answer for this instance."


def _parameters(job: Job) -> dict[str, Any]:
    from google.protobuf import json_format

    plain = proto.plain(job.message)
    if not plain.HasField("model_parameters"):
        return {}
    return {"parameters": json_format.MessageToDict(plain.model_parameters)}


def _predictions(body: bytes, count: int) -> tuple[list[Any], str]:
    """Read the predictions of an answer, or say why it is none."""
    try:
        found = list(orjson.loads(body)["predictions"])
    except (ValueError, KeyError, TypeError):
        return [], "The model server's answer is not JSON with predictions."
    if len(found) != count:
        return [], f"The model server gave {len(found)} predictions for {count} instances."
    return found, ""
