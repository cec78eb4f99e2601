"""Batch prediction jobs as the runs of a batch job of ours: files of lines in, files of answers out, joined by a key of each row.

The service gives a job no name of the caller's, so one is found by its label. It writes the answers into files of its own, in any order and
under names that its documentation and its practice do not agree on; so every line bears its row's key, and the folder is listed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import orjson

from modeldeploy.backends.cloud.runs import Order
from modeldeploy.backends.cloud.shards import refusal
from modeldeploy.backends.vertex import names, translate
from modeldeploy.backends.vertex.client import Client, types
from modeldeploy.backends.vertex.errors import of_operation, of_said
from modeldeploy.backends.vertex.hardware import Machine
from modeldeploy.backends.vertex.storage import Storage
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.errors import ConflictError, InvalidRequestError, NotFoundError
from modeldeploy.serving.lines import ROW

KEY = "modeldeploy_key"
"""Field of each line that says which row it is; the service takes it out before the model sees the row."""
_RAW = "raw"
_SLICE = re.compile(r"part-\d+\.(?P<start>\d+)-(?P<stop>\d+)\.jsonl")
_OURS = frozenset({"JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED"})


class Status(enum.StrEnum):
    """Where a job stands, in the service's words; one that is not known here goes on."""

    RUNNING = "JOB_STATE_RUNNING"
    SUCCEEDED = "JOB_STATE_SUCCEEDED"
    PARTIALLY_SUCCEEDED = "JOB_STATE_PARTIALLY_SUCCEEDED"
    FAILED = "JOB_STATE_FAILED"
    CANCELLED = "JOB_STATE_CANCELLED"
    EXPIRED = "JOB_STATE_EXPIRED"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self is not Status.RUNNING


@attrs.frozen
class Seen:
    """A job as it is shown."""

    name: str
    status: Status
    reason: str = ""
    resource: str = ""
    sources: tuple[str, ...] = ()
    output: str = ""
    """Where its files of answers are."""

    @property
    def blames_rows(self) -> bool:
        """Whether rows without an answer are to blame: a job that came to its end has tried each of them."""
        return self.status.value in _OURS

    @classmethod
    def of(cls, job: Any) -> Seen:
        """Read a message of the API."""
        state = str(getattr(job.state, "name", job.state))
        status = Status(state) if state in set(Status) else Status.RUNNING
        return cls(
            name=job.display_name,
            status=status,
            reason=_reason(job, status),
            resource=job.name,
            sources=tuple(job.input_config.gcs_source.uris),
            output=job.output_info.gcs_output_directory or job.output_config.gcs_destination.output_uri_prefix,
        )


def _reason(job: Any, status: Status) -> str:
    if job.error.code:
        return str(of_said(of_operation(job.error.code, job.error.message), {}))
    partial = "; ".join(each.message for each in list(job.partial_failures)[:3])
    stats = job.completion_stats
    counted = f"{stats.failed_count} rows failed" if stats.failed_count > 0 else ""
    return ": ".join(filter(None, [counted, partial])) or f"the service says {status.value.removeprefix('JOB_STATE_')}"


@attrs.frozen
class PredictionRuns:
    """The batch prediction jobs of one job of ours."""

    client: Client
    storage: Storage
    terms: Terms
    machine: Machine
    labels: Mapping[str, str]
    service_account: str = ""
    word: str = "batch prediction job"

    def prepare(self, order: Order) -> None:
        """Write the files of the run with a key in each line."""
        there = {each.key for each in self.storage.below(f"{order.listing}/")}
        for name in order.names:
            key = f"{order.listing}/{name}"
            if key not in there:
                lines = self.storage.get(f"{order.source}/{name}").splitlines()
                self.storage.put(key, keyed(name, lines), kind="application/jsonl")

    def create(self, order: Order) -> Seen:
        """Ask for a job under the run's own label, unless there is one; ConflictError when it is for other work."""
        found = self.see(order.name)
        if found is None:
            request = {"parent": self.client.access.parent, "batch_prediction_job": self._request(order)}
            return Seen.of(self.client.call("job", "create_batch_prediction_job", request, job=order.name))
        if sorted(found.sources) != sorted(self._sources(order)):
            message = f"there is a batch prediction job {order.name!r} for other work"
            raise ConflictError(message, hint="the next number is tried")
        return found

    def _sources(self, order: Order) -> list[str]:
        return [self.storage.url(f"{order.listing}/{name}") for name in order.names]

    def _request(self, order: Order) -> Any:
        made = types()
        job = made.BatchPredictionJob
        return job(
            display_name=order.name,
            model=order.model,
            labels={**self.labels, names.LABEL_RUN: order.name},
            input_config=job.InputConfig(
                instances_format="jsonl", gcs_source=made.GcsSource(uris=self._sources(order))
            ),
            instance_config=job.InstanceConfig(instance_type="object", key_field=KEY),
            output_config=job.OutputConfig(
                predictions_format="jsonl",
                gcs_destination=made.GcsDestination(output_uri_prefix=self.storage.url(_raw(order))),
            ),
            dedicated_resources=made.BatchDedicatedResources(
                machine_spec=translate.machine_spec(self.machine),
                starting_replica_count=order.instances,
                max_replica_count=order.instances,
            ),
            manual_batch_tuning_parameters=made.ManualBatchTuningParameters(batch_size=self.terms.rows_per_request),
            service_account=self.service_account,
        )

    def see(self, name: str) -> Seen | None:
        """Look at the latest job of this label; of one that ended, what it gave is sorted by the files that were sent."""
        asked = {"parent": self.client.access.parent, "filter": f'labels.{names.LABEL_RUN}="{name}"'}
        jobs = self.client.every("job", "list_batch_prediction_jobs", asked)
        found = next((Seen.of(each) for each in jobs if dict(each.labels).get(names.LABEL_RUN) == name), None)
        if found is not None and found.status.ended:
            self._sort(found)
        return found

    def _sort(self, seen: Seen) -> None:
        """Write the answers of each file that was sent into one file, in its rows' order; a file that lacks an answer is left out."""
        asked = [source.rpartition("/")[2] for source in seen.sources]
        place = self.storage.key(seen.sources[0]).rpartition("/lists/")[0] if seen.sources else ""
        there = {each.key for each in self.storage.below(f"{place}/out/")} if place else set[str]()
        missing = [name for name in asked if f"{place}/out/{name}.out" not in there]
        if not missing:
            return
        answers = self._answers(seen)
        for name in missing:
            found = in_order(name, answers)
            if found is not None:
                self.storage.put(f"{place}/out/{name}.out", found, kind="application/jsonl")

    def _answers(self, seen: Seen) -> dict[str, Any]:
        """Read every line that the job wrote: answers and errors by their keys."""
        found: dict[str, Any] = {}
        for each in self.storage.below(f"{self.storage.key(seen.output).rstrip('/')}/"):
            if is_answers(each.key):
                found.update(read(self.storage.get(each.key)))
        return found

    def stop(self, name: str) -> None:
        """Ask a job to stop; one that is gone or has ended is fine."""
        found = self.see(name)
        if found is None or found.status.ended:
            return
        try:
            self.client.call("job", "cancel_batch_prediction_job", {"name": found.resource})
        except (NotFoundError, InvalidRequestError, ConflictError):
            return

    def lines(self, name: str) -> list[str]:
        """Give the last lines of a job's log: none, for the service writes what matters into its files of errors."""
        del name
        return []


def _raw(order: Order) -> str:
    """Give the place of a run's own files: beside the sorted ones, whose names end with ``.out``."""
    return f"{order.output}/{_RAW}/{order.name}"


def is_answers(key: str) -> bool:
    """Whether a file holds answers or errors, by the names that are documented and by those that are practised."""
    name = key.rpartition("/")[2]
    return name.startswith(("prediction", "errors_")) and "/" in key


def keyed(name: str, lines: Sequence[bytes]) -> bytes:
    """Write rows with a key: the file and the number of the line in it. The rows themselves are not read, only wrapped."""
    return b"".join(
        b'{"%s":"%s:%d","%s":%s}\n' % (KEY.encode(), name.encode(), number, ROW.encode(), line)
        for number, line in enumerate(lines)
    )


def read(data: bytes) -> Iterator[tuple[str, Any]]:
    """Give keys with their answers; an error is the reason why its row has none."""
    for line in data.splitlines():
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        key = found.get("key") or found.get(KEY) or _key_of(found) if isinstance(found, dict) else None
        if not isinstance(key, str):
            continue
        if "prediction" in found:
            yield key, found["prediction"]
        elif "error" in found or "errors" in found:
            yield key, refusal(_told(found.get("error", found.get("errors"))))


def _key_of(found: Mapping[str, Any]) -> Any:
    """Find the key within the instance, where a file of errors repeats it whole."""
    instance = found.get("instance")
    return instance.get(KEY) if isinstance(instance, dict) else None


def _told(error: Any) -> str:
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)


def in_order(name: str, answers: Mapping[str, Any]) -> bytes | None:
    """Write the answers of one file in its rows' order; None when one of them is missing."""
    match = _SLICE.fullmatch(name)
    if match is None:
        return None
    keys = [f"{name}:{number}" for number in range(int(match["stop"]) - int(match["start"]))]
    if any(key not in answers for key in keys):
        return None
    return b"".join(orjson.dumps(answers[key]) + b"\n" for key in keys)
