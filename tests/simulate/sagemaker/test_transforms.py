"""Batch Transform: from objects in storage to objects in storage."""

from __future__ import annotations

import gzip
import json

import pytest
from botocore.exceptions import ClientError

ENDED = {"Completed", "Failed", "Stopped"}


@pytest.fixture(scope="module")
def jobs(cloud, wait_until):
    cloud.model("batch", name="m")
    cloud.model("batch-broken", CRASH="1")
    cloud.model("batch-unwell", UNWELL="1")
    return Jobs(cloud, wait_until)


class Jobs:
    def __init__(self, cloud, wait_until):
        self.cloud = cloud
        self.wait_until = wait_until

    def start(self, name, files, *, model="batch", source=None, output=None, uri="", **more):
        for key, data in files.items():
            self.cloud.put(f"{name}/in/{key}", data)
        bucket = self.cloud.simulator.bucket
        where = {"S3DataType": "S3Prefix", "S3Uri": uri or f"s3://{bucket}/{name}/in/"}
        return self.cloud.sm.create_transform_job(
            TransformJobName=name,
            ModelName=model,
            TransformInput={"DataSource": {"S3DataSource": where}, "ContentType": "text/csv", **(source or {})},
            TransformOutput={"S3OutputPath": f"s3://{bucket}/{name}/out", "Accept": "text/csv", **(output or {})},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
            **more,
        )

    def run(self, name, files, **more):
        self.start(name, files, **more)
        return self.end(name)

    def end(self, name):
        def ended():
            found = self.describe(name)
            return found if found["TransformJobStatus"] in ENDED else None

        return self.wait_until(ended, 30, what=f"{name} ended")

    def describe(self, name):
        return self.cloud.sm.describe_transform_job(TransformJobName=name)

    def out(self, name):
        bucket = self.cloud.simulator.bucket
        listed = self.cloud.s3.list_objects_v2(Bucket=bucket, Prefix=f"{name}/out/").get("Contents", [])
        keys = [each["Key"] for each in listed]
        return {key.removeprefix(f"{name}/out/"): self.cloud.get(f"s3://{bucket}/{key}") for key in keys}

    def log(self):
        return self.cloud.lines("/aws/sagemaker/TransformJobs")


def test_every_object_is_transformed_to_one_of_its_name(jobs):
    found = jobs.run("whole", {"a.csv": b"1\n2\n", "deep/b.csv": b"3\n"})
    assert found["TransformJobStatus"] == "Completed"
    assert found["TransformStartTime"] <= found["TransformEndTime"]
    assert jobs.out("whole") == {"a.csv.out": b"m:1\nm:2\n", "deep/b.csv.out": b"m:3\n"}
    assert "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD" in jobs.log()


def test_lines_are_sent_together_and_put_together_again(jobs):
    lines = b"".join(b"%d\n" % number for number in range(100))
    jobs.run("lines", {"a.csv": lines}, source={"SplitType": "Line"}, output={"AssembleWith": "Line"})
    assert jobs.out("lines") == {"a.csv.out": b"".join(b"m:%d\n" % number for number in range(100))}
    assert "m got 290 bytes" in jobs.log()


def test_single_records_are_sent_one_by_one_and_keep_their_order(jobs):
    jobs.run(
        "single", {"a.csv": b"1\n2\n3\n4\n"}, source={"SplitType": "Line"}, output={"AssembleWith": "Line"},
        BatchStrategy="SingleRecord", MaxConcurrentTransforms=4,
    )  # fmt: skip
    assert jobs.out("single") == {"a.csv.out": b"m:1\nm:2\nm:3\nm:4\n"}
    assert jobs.log().count("m got 1 bytes") == 4


def test_a_payload_is_no_larger_than_its_limit(jobs):
    line = b"x" * 400_000
    jobs.run("limited", {"a.csv": b"\n".join([line] * 5)}, source={"SplitType": "Line"}, MaxPayloadInMB=1)
    assert jobs.log().count("m got 800002 bytes") == 2


def test_input_columns_are_filtered_joined_and_filtered_again(jobs):
    jobs.run(
        "joined", {"a.csv": b'7,1\n"8,9",2\n'},
        source={"SplitType": "Line"}, output={"AssembleWith": "Line"},
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )  # fmt: skip
    assert jobs.out("joined") == {"a.csv.out": b'7,m:1\n"8,9",m:2\n'}


def test_an_answer_that_is_not_what_it_should_be_fails_a_join(jobs):
    found = jobs.run(
        "odd", {"a.jsonl": b'{"a": 1}\n'},
        source={"SplitType": "Line", "ContentType": "application/jsonlines"},
        output={"AssembleWith": "Line", "Accept": "application/jsonlines"},
        DataProcessing={"JoinSource": "Input"},
    )  # fmt: skip
    assert found["FailureReason"] == "ClientError: See job logs for more information"
    assert "Failed to parse a record as application/jsonlines" in jobs.log()


def test_compressed_objects_are_read(jobs):
    jobs.run("packed", {"a.csv.gz": gzip.compress(b"1\n")}, source={"CompressionType": "Gzip"})
    assert jobs.out("packed") == {"a.csv.gz.out": b"m:1\n"}


def test_a_manifest_names_the_objects(jobs):
    bucket = jobs.cloud.simulator.bucket
    jobs.cloud.put("listed/in/b.csv", b"2")
    manifest = json.dumps([{"prefix": f"s3://{bucket}/listed/in/"}, "a.csv"]).encode()
    where = {"S3DataType": "ManifestFile", "S3Uri": jobs.cloud.put("listed/manifest", manifest)}
    jobs.run("listed", {"a.csv": b"1"}, source={"DataSource": {"S3DataSource": where}})
    assert jobs.out("listed") == {"a.csv.out": b"m:1\n"}


@pytest.mark.parametrize(
    ("name", "files", "more", "line"),
    [
        pytest.param("unpacked", {"a.gz": b"no"}, {"CompressionType": "Gzip"}, "is not compressed by gzip", id="gzip"),
        pytest.param(
            "too-large", {"a.csv": b"x" * 1_100_000}, {"SplitType": "Line"}, "larger than the payload limit", id="large"
        ),
    ],
)
def test_an_object_that_cannot_be_read_fails_the_job(jobs, name, files, more, line):
    assert jobs.run(name, files, source=more, MaxPayloadInMB=1)["TransformJobStatus"] == "Failed"
    assert line in jobs.log()


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        pytest.param(b"{}", "The manifest file is not valid", id="invalid"),
        pytest.param(None, "See job logs", id="missing"),
    ],
)
def test_a_manifest_that_names_nothing_fails_the_job(jobs, manifest, reason):
    name = f"manifest-{'invalid' if manifest else 'missing'}"
    bucket = jobs.cloud.simulator.bucket
    text = manifest or json.dumps([{"prefix": f"s3://{bucket}/nowhere/"}, "a.csv"]).encode()
    where = {"S3DataType": "ManifestFile", "S3Uri": jobs.cloud.put(f"{name}/manifest", text)}
    assert reason in jobs.run(name, {}, source={"DataSource": {"S3DataSource": where}})["FailureReason"]


def test_no_capacity_fails_the_job(jobs):
    jobs.cloud.simulator.faults.capacity = True
    try:
        found = jobs.run("no-capacity", {"a.csv": b"1"})
    finally:
        jobs.cloud.simulator.faults.capacity = False
    assert "CapacityError" in found["FailureReason"]


def test_data_that_is_gone_fails_the_job(jobs):
    url = jobs.cloud.put("gone/model.tar.gz", b"1")
    jobs.cloud.model("batch-gone", url=url)
    jobs.cloud.s3.delete_object(Bucket=jobs.cloud.simulator.bucket, Key="gone/model.tar.gz")
    found = jobs.run("gone", {"a.csv": b"1"}, model="batch-gone")
    assert f"Failed to download model data from URL: {url}" in found["FailureReason"]


def test_one_bad_object_fails_the_job_and_the_others_are_done(jobs):
    found = jobs.run("mixed", {"a.csv": b"1", "b.csv": b"fail 400", "c.csv": b"3"})
    assert (found["TransformJobStatus"], found["FailureReason"]) == (
        "Failed",
        "ClientError: See job logs for more information",
    )
    assert set(jobs.out("mixed")) == {"a.csv.out", "c.csv.out"}
    assert f"{jobs.cloud.simulator.bucket}/mixed/in/b.csv: ClientError: 400" in jobs.log()
    assert "mixed/in/b.csv: the model says no" in jobs.log()


def test_a_container_that_fails_is_asked_again_as_often_as_allowed(jobs):
    before = jobs.cloud.lines("/aws/sagemaker/TransformJobs").count("m got 8 bytes")
    found = jobs.run("again", {"a.csv": b"fail 500"}, ModelClientConfig={"InvocationsMaxRetries": 2})
    assert found["FailureReason"] == "AlgorithmError: See job logs for more information"
    assert jobs.log().count("m got 8 bytes") - before == 3


@pytest.mark.parametrize("model", ["batch-broken", "batch-unwell"])
def test_a_container_that_does_not_come_up_fails_the_job(jobs, model):
    found = jobs.run(f"ping-{model}", {"a.csv": b"1"}, model=model)
    assert "AlgorithmError: Model container failed to respond to ping" in found["FailureReason"]


def test_a_stopped_job_leaves_no_output(jobs):
    jobs.start("halted", {"a.csv": b"1", "b.csv": b"slow"})
    jobs.cloud.sm.stop_transform_job(TransformJobName="halted")
    assert jobs.end("halted")["TransformJobStatus"] == "Stopped"
    assert jobs.out("halted") == {}
    with pytest.raises(ClientError, match="the transform job is in status Stopped"):
        jobs.cloud.sm.stop_transform_job(TransformJobName="halted")


def test_a_job_that_waits_for_an_answer_can_be_stopped(jobs):
    jobs.start("stuck", {"b.csv": b"slow"})
    jobs.wait_until(lambda: "m got 4 bytes" in jobs.log(), 10, what="the container has the request")
    jobs.cloud.sm.stop_transform_job(TransformJobName="stuck")
    assert jobs.end("stuck")["TransformJobStatus"] == "Stopped"


def test_a_name_is_taken_for_ever(jobs):
    jobs.run("once", {"a.csv": b"1"})
    with pytest.raises(ClientError, match="Transform job names must be unique") as caught:
        jobs.start("Once", {})
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"


def test_a_job_that_is_not_there_has_a_code_of_its_own(jobs):
    with pytest.raises(ClientError) as caught:
        jobs.describe("nobody")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFound"


def test_jobs_are_listed(jobs):
    jobs.run("in-list", {"a.csv": b"1"})
    found = jobs.cloud.sm.list_transform_jobs(NameContains="in-list", StatusEquals="Completed")
    assert [each["TransformJobName"] for each in found["TransformJobSummaries"]] == ["in-list"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        pytest.param({"uri": "s3://nowhere/x"}, "No S3 objects found under S3 URL", id="no-input"),
        pytest.param({"MaxConcurrentTransforms": 20, "MaxPayloadInMB": 6}, "must not exceed 100 MB", id="too-much"),
        pytest.param({"BatchStrategy": "SingleRecord"}, "requires a SplitType", id="single-unsplit"),
        pytest.param({"source": {"SplitType": "RecordIO"}}, "does not simulate SplitType RecordIO", id="recordio"),
        pytest.param({"DataProcessing": {"JoinSource": "Input"}}, "needs SplitType Line", id="csv-unsplit"),
        pytest.param({"DataProcessing": {"InputFilter": "$..x"}}, "Invalid JSONPath expression", id="path"),
        pytest.param({"model": "nobody"}, "Could not find model", id="model"),
    ],
)
def test_what_the_service_would_refuse_is_refused(jobs, more, text):
    jobs.cloud.put("refusals/in/a.csv", b"1")
    with pytest.raises(ClientError, match=text):
        jobs.start("refusals", {}, **more)


def test_the_container_is_told_that_it_works_in_a_batch(jobs):
    jobs.run("told", {"a": b"environment"}, Environment={"COLOUR": "blue"}, MaxPayloadInMB=2)
    environment = json.loads(jobs.out("told")["a.out"])
    assert {name: environment.get(name) for name in ("COLOUR", "SAGEMAKER_BATCH", "SAGEMAKER_MAX_PAYLOAD_IN_MB")} == {
        "COLOUR": "blue",
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2",
    }
