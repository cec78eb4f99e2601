"""Does the work of a batch job: the deployment's own script, a mini-batch at a time, in real processes."""

from __future__ import annotations

import functools
import logging
import queue
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.azureml.batch_job import CANCELED, COMPLETED, ENDED, FAILED, FINALIZING, RUNNING, Job
from modeldeploy.simulate.azureml.batch_jobs import inputs
from modeldeploy.simulate.azureml.durations import seconds
from modeldeploy.simulate.azureml.errors import ServiceError
from modeldeploy.simulate.azureml.instances import Log
from modeldeploy.simulate.azureml.machines import no_capacity
from modeldeploy.simulate.azureml.materials import Materials, place_of
from modeldeploy.simulate.azureml.programs import BATCH_WORKER
from modeldeploy.simulate.azureml.world import World
from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.processes import Child, Patience, StartError
from modeldeploy.simulate.wire import UnreachableError

_log = logging.getLogger(__name__)
LOGS = "ExperimentRun/dcid.{run}/logs/user/stdout/driver.txt"
_OK = 200
_APPEND = "appendrow"
_JSON = {"Content-Type": "application/json"}


class JobError(Exception):
    """The job cannot go on."""


class JobCanceledError(Exception):
    """Somebody canceled the job."""


@attrs.define(eq=False)
class Progress:
    """What the workers of a job share."""

    job: Job
    threshold: int
    waiting: queue.SimpleQueue[list[str]]
    rows: list[str] = attrs.field(factory=list)
    failed: int = 0
    broken: str = ""
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def done(self, batch: list[str], rows: list[str], count: int) -> None:
        """Keep what a mini-batch gave; each file that it gave nothing for has failed."""
        with self.lock:
            self.rows += rows
        self.lost(max(0, len(batch) - count))

    def lost(self, files: int) -> None:
        """Count files that failed; too many of them end the job."""
        with self.lock:
            self.failed += files
            if self.threshold >= 0 and self.failed > self.threshold:
                self.broken = (
                    f"The number of failed files, {self.failed}, is above the error threshold of {self.threshold}."
                )

    def over(self) -> bool:
        """Say whether nothing more is to be done."""
        return bool(self.broken) or self.job.stop.is_set()


@attrs.define(eq=False)
class Runner:
    """Runs jobs; every process ends with its job."""

    world: World
    materials: Materials
    launcher: Launcher
    directory: Path
    patience_s: float
    processes: int
    """How many processes stand for all that work on a job at a time at most."""

    def run(self, job: Job) -> None:
        """Run a job from its start to its end."""
        directory = Path(tempfile.mkdtemp(prefix="j", dir=self.directory))
        log = Log()
        try:
            self._pass(job, self.world.timings.job)
            self._work(job, directory, log)
            self._pass(job, self.world.timings.finalize, FINALIZING)
            self._end(job, COMPLETED)
        except JobCanceledError:
            self._end(job, CANCELED)
        except JobError as error:
            self._end(job, FAILED, str(error))
        except ServiceError as error:
            self._end(job, FAILED, f"{error.code}: {error.message}")
        except Exception as error:  # noqa: BLE001 - a job ends in some state, whatever happens
            _log.exception("the simulator failed")
            self._end(job, FAILED, f"The simulator failed: {error}")
        finally:
            self._keep_log(job, log, directory)
            shutil.rmtree(directory, ignore_errors=True)

    def _pass(self, job: Job, takes: float, status: str = "") -> None:
        with self.world.lock:
            if job.stop.is_set():
                raise JobCanceledError
            job.status = status or job.status
        if self.world.clock.wait(takes, job.stop):
            raise JobCanceledError

    def _end(self, job: Job, status: str, error: str = "") -> None:
        with self.world.lock:
            if job.status not in ENDED:
                job.status, job.error, job.ended = status, error, self.world.clock.now()

    def _work(self, job: Job, directory: Path, log: Log) -> None:
        if self.world.faults.capacity:
            raise no_capacity(str(job.settings.get("compute")))
        output = directory / "output"
        output.mkdir()
        files = self._files(job, directory / "input")
        environment = self.materials.bring(directory, job.settings, log.write)
        environment["AZUREML_BI_OUTPUT_PATH"] = str(output)
        with self.world.lock:
            job.status, job.started = RUNNING, self.world.clock.now()
        progress = self._progress(job, files)
        try:
            self._spread(job, progress, functools.partial(self._worker, directory, environment, log))
        finally:
            self._deliver(job, output, progress)
        if job.stop.is_set():
            raise JobCanceledError
        if progress.broken:
            raise JobError(progress.broken)

    def _files(self, job: Job, into: Path) -> list[str]:
        for number, uri in enumerate(inputs(job.asked)):
            container, prefix = place_of(uri, self.world.site.container)
            place = into / str(number)
            place.mkdir(parents=True)
            if not self.materials.blobs.fetch(container, prefix, place):
                raise JobError(f"There is nothing at {uri}.")
        return sorted(str(each) for each in into.rglob("*") if each.is_file())

    @staticmethod
    def _progress(job: Job, files: list[str]) -> Progress:
        waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        size = max(1, int(job.settings["miniBatchSize"]))
        for start in range(0, len(files), size):
            waiting.put(files[start : start + size])
        return Progress(job, int(job.settings["errorThreshold"]), waiting)

    def _spread(self, job: Job, progress: Progress, start: Any) -> None:
        wanted = int(job.settings["maxConcurrencyPerInstance"]) * int(job.settings["resources"]["instanceCount"])
        count = max(1, min(wanted, self.processes, progress.waiting.qsize()))
        with ThreadPoolExecutor(count, thread_name_prefix="batch") as threads:
            for each in [threads.submit(self._share, job, progress, start) for _number in range(count)]:
                each.result()

    def _share(self, job: Job, progress: Progress, start: Any) -> None:
        """Do mini-batches until there are no more."""
        worker: Child | None = None
        try:
            while not progress.over():
                try:
                    batch = progress.waiting.get_nowait()
                except queue.Empty:
                    return
                worker = self._batch(job, progress, batch, worker, start)
        finally:
            if worker is not None:
                worker.stop()

    def _batch(self, job: Job, progress: Progress, batch: list[str], worker: Child | None, start: Any) -> Child | None:
        """Do one mini-batch, again as often as it may be tried, and give the worker that is left."""
        retries = job.settings["retrySettings"]
        for _attempt in range(int(retries["maxRetries"]) + 1):
            if job.stop.is_set():
                return worker
            worker = worker or start(job)
            answer = _asked(worker, batch, seconds(retries["timeout"]))
            if answer is not None and "rows" in answer:
                progress.done(batch, answer["rows"], answer["count"])
                return worker
            if answer is None:
                # It hangs, or has ended: another takes its place.
                worker.stop()
                worker = None
        progress.lost(len(batch))
        return worker

    def _worker(self, directory: Path, environment: dict[str, str], log: Log, job: Job) -> Child:
        instance = Child(self.launcher, Path(tempfile.mkdtemp(prefix="w", dir=directory)), log.write)
        try:
            instance.start(BATCH_WORKER, environment)
            instance.wait(Patience(self.patience_s, self.patience_s), job.stop)
        except StartError as error:
            instance.stop()
            if job.stop.is_set():
                raise JobCanceledError from error
            message = "The init function of the scoring script failed. See the job's logs."
            raise JobError(message) from error
        except BaseException:
            instance.stop()
            raise
        return instance

    def _deliver(self, job: Job, output: Path, progress: Progress) -> None:
        """Put what the script wrote, and the rows that it gave, to where the output goes."""
        whole = not progress.broken and not job.stop.is_set()
        if str(job.settings["outputAction"]).lower() == _APPEND and whole:
            text = "".join(f"{row}\n" for row in progress.rows)
            (output / job.settings["outputFileName"]).write_text(text, encoding="utf-8")
        for each in sorted(output.rglob("*")):
            if each.is_file():
                self._upload(each, *job.output, each.relative_to(output).as_posix())

    def _keep_log(self, job: Job, log: Log, directory: Path) -> None:
        file = directory / "driver.txt"
        file.write_text("".join(f"{line}\n" for line in log.tail(20_000)), encoding="utf-8")
        folder, _, name = LOGS.format(run=job.child).rpartition("/")
        self._upload(file, self.world.site.artifacts, folder, name)

    def _upload(self, file: Path, container: str, folder: str, name: str) -> None:
        with file.open("rb") as stream:
            self.materials.blobs.write(container, f"{folder}/{name}", stream, self.world.clock.now())


def _asked(worker: Child, batch: list[str], timeout: float) -> dict[str, Any] | None:
    """Hand a mini-batch to a worker; None when there was no answer."""
    try:
        reply = worker.line.ask("POST", "/run", _JSON, orjson.dumps(batch), timeout)
    except (TimeoutError, UnreachableError):
        return None
    answer: dict[str, Any] = orjson.loads(reply.body)
    return answer if reply.status == _OK else {}
