"""Runs transform jobs: one container, the objects one after another, their payloads several at a time."""

from __future__ import annotations

import contextlib
import gzip
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.processes import StartError
from modeldeploy.simulate.sagemaker import archives, records
from modeldeploy.simulate.sagemaker.cloud import Cloud, split_s3
from modeldeploy.simulate.sagemaker.containers import Container
from modeldeploy.simulate.sagemaker.fleets import NO_CAPACITY, Yard
from modeldeploy.simulate.sagemaker.logbook import TRANSFORM_JOBS, Logbook
from modeldeploy.simulate.sagemaker.records import RecordError
from modeldeploy.simulate.sagemaker.transform_job import COMPLETED, FAILED, STOPPED, TransformJob
from modeldeploy.simulate.sagemaker.world import Json, World
from modeldeploy.simulate.wire import Reply, UnreachableError

_MEBIBYTE = 1024 * 1024
_OK, _BAD, _SERVER = 200, 400, 500
_SEE_LOGS = "See job logs for more information"
_SHOWN = 1_000


class JobError(Exception):
    """The job cannot go on; the text is the FailureReason."""


class JobStoppedError(Exception):
    """Somebody stopped the job."""


@attrs.frozen
class Plan:
    """How a job is done: as the request says, else as the container says, else as the service does."""

    concurrent: int
    payload_mb: int
    strategy: str
    timeout_s: float
    retries: int

    @classmethod
    def of(cls, request: Json, said: Json) -> Plan:
        """Choose for each setting whoever says something first."""
        client = request.get("ModelClientConfig", {})
        found = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MultiRecord", **said, **request}
        return cls(
            max(1, int(found["MaxConcurrentTransforms"])),
            int(found["MaxPayloadInMB"]),
            _strategy(str(found["BatchStrategy"])),
            float(client.get("InvocationsTimeoutInSeconds", 600)),
            int(client.get("InvocationsMaxRetries", 3)),
        )


def _strategy(name: str) -> str:
    """Read a strategy as requests write it, or as containers do."""
    return {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}.get(name, name)


@attrs.define(eq=False)
class Transforming:
    """What the service does for a job."""

    world: World
    cloud: Cloud
    yard: Yard
    logbook: Logbook

    def run(self, job: TransformJob) -> None:
        """Run a job from its start to its end."""
        log = self._data_log(job)
        try:
            self._wait(job)
            outputs, failures = self._transform(job, log)
            self._check_stopped(job)
            for key, data in outputs.items():
                self.cloud.write(*split_s3(key), data)
        except JobStoppedError:
            self._end(job, STOPPED, "")
        except JobError as error:
            self._end(job, FAILED, str(error))
        else:
            self._end(job, FAILED if failures else COMPLETED, f"{failures[0]}: {_SEE_LOGS}" if failures else "")

    def _transform(self, job: TransformJob, log: Callable[[str], None]) -> tuple[dict[str, bytes], list[str]]:
        """Transform every object; one that fails has no output, and the others are done all the same."""
        outputs: dict[str, bytes] = {}
        failures: list[str] = []
        with self._container(job) as container:
            job.started = self.world.clock.now()
            plan = Plan.of(job.request, _parameters(container))
            log(
                f"MaxConcurrentTransforms={plan.concurrent}, MaxPayloadInMB={plan.payload_mb}, "
                f"BatchStrategy={'MULTI_RECORD' if plan.strategy == 'MultiRecord' else 'SINGLE_RECORD'}"
            )
            for bucket, key, name in self._objects(job):
                self._check_stopped(job)
                try:
                    outputs[f"{job.output['S3OutputPath'].rstrip('/')}/{name}.out"] = self._object(
                        job, container, plan, self._read(job, bucket, key)
                    )
                except _FailedError as error:
                    failures.append(error.kind)
                    for line in error.lines:
                        log(f"{bucket}/{key}: {line}")
        return outputs, failures

    def _object(self, job: TransformJob, container: Container, plan: Plan, data: bytes) -> bytes:
        processing = _processing(job)
        found = records.split(data, job.source.get("SplitType", "None"))
        several = plan.strategy == "MultiRecord"
        try:
            batches = list(records.payloads(found, several=several, limit=plan.payload_mb * _MEBIBYTE))
            with ThreadPoolExecutor(plan.concurrent, thread_name_prefix="transform") as threads:
                answers = list(threads.map(lambda batch: self._batch(job, container, plan, processing, batch), batches))
        except RecordError as error:
            raise _FailedError("ClientError", [f"ClientError: {error}"]) from error
        return records.assemble(answers, job.output.get("AssembleWith", "None"))

    def _batch(
        self, job: TransformJob, container: Container, plan: Plan, processing: records.Processing, batch: list[bytes]
    ) -> bytes:
        body = b"\n".join(processing.before(batch))
        # A line ends with its end: the last one of a payload, too, unless it is the only one.
        body = body + b"\n" if len(batch) > 1 else body
        reply = self._ask(job, container, plan, body)
        if reply.status >= _BAD:
            raise _refused(reply)
        return processing.after(batch, reply.body)

    def _ask(self, job: TransformJob, container: Container, plan: Plan, body: bytes) -> Reply:
        """Ask once, and again as often as it is allowed while the container fails."""
        headers = {"Content-Type": job.source.get("ContentType", ""), "Accept": job.output.get("Accept", "")}
        headers = {name: value for name, value in headers.items() if value}
        reply = Reply(_SERVER, {}, b"Unable to get response from algorithm")
        for _attempt in range(plan.retries + 1):
            self._check_stopped(job)
            with contextlib.suppress(TimeoutError, UnreachableError):
                reply = container.line.ask("POST", "/invocations", headers, body, plan.timeout_s)
            if reply.status < _SERVER:
                break
        return reply

    @contextlib.contextmanager
    def _container(self, job: TransformJob) -> Iterator[Container]:
        if self.world.faults.capacity:
            raise JobError(f"CapacityError: {NO_CAPACITY}")
        log = self.logbook.writer(TRANSFORM_JOBS, f"{job.name}/i-{uuid.uuid4().hex[:17]}")
        try:
            container = self.yard.start(job.model, log, _environment(job))
        except (archives.DownloadError, archives.ExtractError) as error:
            raise JobError(f"ClientError: Failed to download model data from URL: {error.url}") from error
        job.container = container
        try:
            self._await(container, job)
            yield container
        finally:
            job.container = None
            self.yard.end(container)

    def _await(self, container: Container, job: TransformJob) -> None:
        try:
            self.yard.await_healthy(container, job.stop)
        except StartError as error:
            self._check_stopped(job)
            raise JobError(
                "AlgorithmError: Model container failed to respond to ping. Please ensure /ping endpoint is implemented and responds with "
                "an HTTP 200 status code"
            ) from error

    def _objects(self, job: TransformJob) -> Iterator[tuple[str, str, str]]:
        """Give bucket, key and name of every object; a name is what lies behind the folder that was given."""
        source = job.source["DataSource"]["S3DataSource"]
        bucket, prefix = split_s3(source["S3Uri"])
        if source["S3DataType"] == "ManifestFile":
            yield from self._manifest(bucket, prefix)
            return
        folder = prefix.rpartition("/")[0]
        for key in self.cloud.keys(bucket, prefix):
            if not key.endswith("/"):
                yield bucket, key, key.removeprefix(folder).lstrip("/")

    def _manifest(self, bucket: str, key: str) -> Iterator[tuple[str, str, str]]:
        try:
            first, *names = orjson.loads(self.cloud.read(bucket, key) or b"")
            there, folder = split_s3(first["prefix"])
        except (orjson.JSONDecodeError, ValueError, TypeError, KeyError) as error:
            raise JobError("ClientError: The manifest file is not valid.") from error
        for name in names:
            yield there, f"{folder}{name}", name

    def _read(self, job: TransformJob, bucket: str, key: str) -> bytes:
        data = self.cloud.read(bucket, key)
        if data is None:
            raise _FailedError("ClientError", ["ClientError: 404", "", "Message:", "there is no such object"])
        if job.source.get("CompressionType") == "Gzip":
            try:
                return gzip.decompress(data)
            except (OSError, EOFError) as error:
                raise _FailedError("ClientError", ["ClientError: the object is not compressed by gzip"]) from error
        return data

    def _data_log(self, job: TransformJob) -> Callable[[str], None]:
        write = self.logbook.writer(TRANSFORM_JOBS, f"{job.name}/i-{uuid.uuid4().hex[:17]}/data-log")

        def log(line: str) -> None:
            at = datetime.fromtimestamp(self.world.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            write(f"{at}:[sagemaker logs]: {line}")

        return log

    def _wait(self, job: TransformJob) -> None:
        self.world.clock.wait(self.world.timings.transform, job.stop)
        self._check_stopped(job)

    def _check_stopped(self, job: TransformJob) -> None:
        if job.stop.is_set() or self.world.stopping.is_set():
            raise JobStoppedError

    def _end(self, job: TransformJob, status: str, reason: str) -> None:
        self.logbook.flush()
        with self.world.lock:
            job.status, job.reason = status, reason
            job.ended = job.modified = self.world.clock.now()


class _FailedError(Exception):
    """One object was not transformed: ``kind`` is who is to blame, ``lines`` what the log says."""

    def __init__(self, kind: str, lines: list[str]) -> None:
        super().__init__(kind)
        self.kind = kind
        self.lines = lines


def _refused(reply: Reply) -> _FailedError:
    kind = "ClientError" if reply.status < _SERVER else "AlgorithmError"
    said = reply.body.decode("utf-8", "replace")[:_SHOWN].splitlines()
    return _FailedError(kind, [f"{kind}: {reply.status}", "", "Message:", *said])


def _environment(job: TransformJob) -> dict[str, str]:
    request = job.request
    plan = Plan.of(request, {})
    return {
        **request.get("Environment", {}),
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(plan.payload_mb),
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD" if plan.strategy == "MultiRecord" else "SINGLE_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(plan.concurrent),
    }


def _parameters(container: Container) -> Json:
    """Ask the container how it wants to be asked; most do not say."""
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        reply = container.line.ask("GET", "/execution-parameters", {}, b"", 2.0)
        if reply.status == _OK:
            said: Any = orjson.loads(reply.body)
            return said if isinstance(said, dict) else {}
    return {}


def _processing(job: TransformJob) -> records.Processing:
    asked = job.request.get("DataProcessing", {})
    return records.Processing(
        job.source.get("ContentType", "").partition(";")[0].strip(),
        lines=job.source.get("SplitType", "None") == "Line",
        input_filter=asked.get("InputFilter", "$"),
        output_filter=asked.get("OutputFilter", "$"),
        join=asked.get("JoinSource") == "Input",
    )
