"""CreateTransformJob, DescribeTransformJob, StopTransformJob, ListTransformJobs."""

from __future__ import annotations

import functools

import attrs

from modeldeploy.simulate.sagemaker import jsonpath, records
from modeldeploy.simulate.sagemaker.cloud import Cloud, split_s3
from modeldeploy.simulate.sagemaker.errors import ServiceError, invalid, not_simulated
from modeldeploy.simulate.sagemaker.listing import listed
from modeldeploy.simulate.sagemaker.transform_job import IN_PROGRESS, STOPPING, TransformJob, described, summary
from modeldeploy.simulate.sagemaker.transforming import Transforming
from modeldeploy.simulate.sagemaker.world import Json, Record, Shelf, World

_MOST_MB = 100


@attrs.define(eq=False)
class Transforms:
    """The transform jobs of the account; their names are taken for ever."""

    world: World
    cloud: Cloud
    models: Shelf[Record]
    shelf: Shelf[TransformJob]
    transforming: Transforming

    def create(self, request: Json) -> Json:
        """Begin to transform what lies in storage."""
        world, name = self.world, request["TransformJobName"]
        self._check_free(name)
        model = self.models.get(request["ModelName"])
        _check(request)
        self._check_source(request["TransformInput"]["DataSource"]["S3DataSource"])
        now = world.clock.now()
        job = TransformJob(name, self.shelf.arn(name), request, now, world.visible_at(), model=model, modified=now)
        with world.lock:
            self._check_free(name)
            self.shelf.items[name.lower()] = job
            world.tag(job.arn, request.get("Tags", []))
        world.go(f"transform {name}", functools.partial(self.transforming.run, job))
        return {"TransformJobArn": job.arn}

    def describe(self, request: Json) -> Json:
        """Tell how a job is."""
        with self.world.lock:
            return described(self._get(request["TransformJobName"]))

    def stop(self, request: Json) -> Json:
        """Begin to stop a job that has not ended."""
        with self.world.lock:
            job = self._get(request["TransformJobName"])
            if job.status != IN_PROGRESS:
                raise invalid(f"The request was rejected because the transform job is in status {job.status}.")
            job.status, job.modified = STOPPING, self.world.clock.now()
        job.stop.set()
        container = job.container
        if container is not None:
            # Whoever waits for its answer shall not wait longer.
            container.stop()
        return {}

    def page(self, request: Json) -> Json:
        """List the jobs."""
        with self.world.lock:
            status = ("StatusEquals", "TransformJobStatus")
            return listed(self.shelf.values(), request, "TransformJobSummaries", summary, status=status)

    def _get(self, name: str) -> TransformJob:
        try:
            return self.shelf.get(name)
        except ServiceError as error:
            text = f"Could not find requested job with name: {name}"
            raise ServiceError("ResourceNotFound", text) from error

    def _check_free(self, name: str) -> None:
        if name.lower() in self.shelf.items:
            text = (
                "Transform job names must be unique within an AWS account and region, and a transform job with this name already exists "
                f"({self.shelf.arn(name)})"
            )
            raise ServiceError("ResourceInUse", text)

    def _check_source(self, source: Json) -> None:
        bucket, prefix = split_s3(source["S3Uri"])
        if not self.cloud.keys(bucket, prefix):
            raise invalid(
                f'No S3 objects found under S3 URL "{source["S3Uri"]}" given in input data source. Please ensure that the bucket exists in '
                f"the selected region ({self.world.site.region}), that objects exist under that S3 prefix, and that the role has "
                f'"s3:ListBucket" permissions on bucket "{bucket}".'
            )


def _check(request: Json) -> None:
    source, output = request["TransformInput"], request["TransformOutput"]
    if source.get("SplitType", "None") in {"RecordIO", "TFRecord"}:
        raise not_simulated(f"SplitType {source['SplitType']}")
    if source["DataSource"]["S3DataSource"]["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
        raise not_simulated(f"S3DataType {source['DataSource']['S3DataSource']['S3DataType']}")
    if request.get("MaxConcurrentTransforms", 1) * request.get("MaxPayloadInMB", 0) > _MOST_MB:
        raise invalid(f"MaxConcurrentTransforms * MaxPayloadInMB must not exceed {_MOST_MB} MB.")
    if request.get("BatchStrategy") == "SingleRecord" and source.get("SplitType", "None") == "None":
        raise invalid("BatchStrategy SingleRecord requires a SplitType other than None.")
    _check_processing(request.get("DataProcessing", {}), source, output)


def _check_processing(processing: Json, source: Json, output: Json) -> None:
    for member in ("InputFilter", "OutputFilter"):
        jsonpath.compile_path(processing.get(member, "$"))
    asked = records.Processing(
        source.get("ContentType", ""),
        lines=True,
        input_filter=processing.get("InputFilter", "$"),
        output_filter=processing.get("OutputFilter", "$"),
        join=processing.get("JoinSource") == "Input",
    )
    if asked.idle:
        return
    kind = asked.content_type.partition(";")[0].strip()
    if kind not in records.STRUCTURED:
        raise invalid("DataProcessing needs a ContentType of text/csv, application/json or application/jsonlines.")
    if asked.join and output.get("Accept", "").partition(";")[0].strip() != kind:
        raise invalid("JoinSource Input needs Accept to be the same as ContentType.")
    if kind == records.CSV and (source.get("SplitType"), output.get("AssembleWith")) != ("Line", "Line"):
        raise invalid("DataProcessing of text/csv needs SplitType Line and AssembleWith Line.")
