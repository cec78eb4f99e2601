"""The service of batch prediction jobs; other kinds of jobs are not simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.batch_job import Job
from modeldeploy.simulate.vertex.checks import check_container, check_machine
from modeldeploy.simulate.vertex.errors import ServiceError, invalid, not_found, precondition
from modeldeploy.simulate.vertex.listing import chosen, page
from modeldeploy.simulate.vertex.names import check_display_name, check_labels
from modeldeploy.simulate.vertex.operations import Operation, Operations
from modeldeploy.simulate.vertex.registry import Registry
from modeldeploy.simulate.vertex.replicas import Plan
from modeldeploy.simulate.vertex.world import World

_FIELDS = ("display_name", "name", "state", "model")
_INPUTS = ("jsonl", "csv")
_KNOWN_INPUTS = ("bigquery", "tf-record", "tf-record-gzip", "file-list")
_TYPES = ("", "object", "array")
_COLLECTION = "batchPredictionJobs"


@attrs.define(eq=False)
class BatchJobs:
    """Answers the part of ``JobService`` that is about batch prediction jobs."""

    world: World
    operations: Operations
    registry: Registry
    run: Callable[[Job], None]
    _known: dict[str, Job] = attrs.field(factory=dict)

    def create_batch_prediction_job(self, request: Any) -> Any:
        """Make a job, which begins by itself; nothing keeps a caller from making the same job twice."""
        site = self.world.site
        site.check_parent(request.parent)
        message = proto.copy(request.batch_prediction_job)
        check_job(message)
        with self.world.lock:
            plan = self._planned(message)
            message.name = f"{site.parent}/{_COLLECTION}/{self.world.new_id()}"
            message.state = "JOB_STATE_PENDING"
            message.create_time = message.update_time = self.world.now()
            message.completion_stats = {"incomplete_count": -1}
            job = Job(message, plan, self.world)
            self._known[job.id] = job
            told = proto.copy(message)
        self.world.go("batch prediction job", lambda: self.run(job))
        return told

    def _planned(self, message: Any) -> Plan:
        """Find the model of a job, and say what its processes are made of."""
        if message.unmanaged_container_model.container_spec.image_uri:
            container = message.unmanaged_container_model.container_spec
            return Plan("", "", "", "", container, message.dedicated_resources)
        entry, number, model = self.registry.version(message.model)
        message.model, message.model_version_id = entry.name, number
        return Plan("", "", entry.id, number, model.container_spec, message.dedicated_resources, model.display_name)

    def get_batch_prediction_job(self, request: Any) -> Any:
        """Tell a job."""
        with self.world.lock:
            return proto.copy(self._find(request.name).message)

    def list_batch_prediction_jobs(self, request: Any) -> Any:
        """Tell the jobs that a filter lets through, the latest first."""
        self.world.site.check_parent(request.parent)
        with self.world.lock:
            every = [proto.copy(each.message) for each in reversed(self._known.values())]
        found, token = page(chosen(every, request.filter, _FIELDS), request.page_size, request.page_token)
        return proto.v1().ListBatchPredictionJobsResponse(batch_prediction_jobs=found, next_page_token=token)

    def cancel_batch_prediction_job(self, request: Any) -> Any:
        """Ask a job to stop; what it has written stays."""
        with self.world.lock:
            job = self._find(request.name)
            if job.over:
                raise precondition(f"{job.name} is in the state JOB_STATE_{job.state} and cannot be cancelled.")
            job.become("CANCELLING")
        # Whoever waits for an answer of its processes is free when they end.
        job.stop.set()
        self.world.go("cancelled job", job.end_workers)
        return proto.empty()

    def delete_batch_prediction_job(self, request: Any) -> Any:
        """Begin to delete a job that is over; its output stays."""
        with self.world.lock:
            job = self._find(request.name)
            if not job.over:
                raise precondition(f"{job.name} is not in a final state and cannot be deleted.")

        def work(operation: Operation) -> Any:
            operation.wait(self.world.timings.delete)
            with self.world.lock:
                self._known.pop(job.id, None)

        metadata = proto.v1().DeleteOperationMetadata()
        return self.operations.start("DeleteBatchPredictionJob", job.name, metadata, work)

    def _find(self, name: str) -> Job:
        job = self._known.get(self.world.site.id_of(name, _COLLECTION))
        if job is None:
            kind = "BatchPredictionJob"
            raise not_found(kind, name)
        return job

    def stop(self) -> None:
        """Wake every job."""
        with self.world.lock:
            known = list(self._known.values())
        for each in known:
            each.stop.set()


def check_job(message: Any) -> None:
    """Refuse a job that lacks something, or asks for what does not fit together."""
    check_display_name(message.display_name)
    check_labels(message.labels)
    unmanaged = bool(message.unmanaged_container_model.container_spec.image_uri)
    if bool(message.model) is unmanaged:
        raise invalid("Exactly one of model and unmanaged_container_model must be set.")
    if unmanaged:
        check_container(message.unmanaged_container_model.container_spec)
        if message.unmanaged_container_model.artifact_uri:
            raise ServiceError("UNIMPLEMENTED", "An unmanaged model with files is not simulated; upload the model.")
    _check_input(message.input_config)
    _check_output(message.output_config)
    _check_instances(message.input_config.instances_format, message.instance_config)
    if "dedicated_resources" not in message:
        raise invalid("dedicated_resources is required for models with a container of their own.")
    check_machine(message.dedicated_resources.machine_spec)
    if message.generate_explanation:
        raise ServiceError("UNIMPLEMENTED", "Explanations are not simulated.")


def _check_input(config: Any) -> None:
    if config.instances_format in _KNOWN_INPUTS:
        raise ServiceError("UNIMPLEMENTED", f"instances_format {config.instances_format} is not simulated.")
    if config.instances_format not in _INPUTS:
        raise invalid(f"instances_format {config.instances_format!r} is not supported.")
    uris = list(config.gcs_source.uris)
    if not uris or not all(each.startswith("gs://") for each in uris):
        raise invalid("input_config.gcs_source.uris must be URIs of Cloud Storage.")


def _check_output(config: Any) -> None:
    if config.predictions_format != "jsonl":
        raise invalid(f"predictions_format {config.predictions_format!r} is not supported by the model; jsonl is.")
    if not config.gcs_destination.output_uri_prefix.startswith("gs://"):
        raise invalid("output_config.gcs_destination.output_uri_prefix must be a URI of Cloud Storage.")


def _check_instances(form: str, config: Any) -> None:
    if config.instance_type not in _TYPES:
        raise invalid(f"instance_type {config.instance_type!r} is not supported; object and array are.")
    if config.included_fields and config.excluded_fields:
        raise invalid("included_fields and excluded_fields cannot both be set.")
    if form == "csv" and (config.included_fields or config.excluded_fields):
        raise invalid("included_fields and excluded_fields do not apply to csv.")
    if form == "csv" and config.instance_type:
        raise invalid("instance_type does not apply to csv, whose rows are sent as arrays.")
    if config.key_field and config.key_field in config.included_fields:
        raise invalid("key_field cannot be among the included_fields.")
