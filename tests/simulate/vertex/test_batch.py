"""Batch prediction jobs: instances, output files, what fails, and how a job ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.api_core import exceptions as told

from modeldeploy.simulate.vertex import Simulator


def _lines(found: dict[str, list[str]]) -> list[Any]:
    return [json.loads(each) for name in sorted(found) if "results" in name for each in found[name]]


def _got(found: dict[str, list[str]]) -> list[Any]:
    return [each["prediction"]["got"] for each in _lines(found)]


def _jsonl(*values: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in values)


def test_instances_come_back_in_their_order_with_their_predictions(cloud: Any):
    uri = cloud.put("numbers.jsonl", _jsonl(*range(30)))
    job = cloud.finished(cloud.job(cloud.model(NAME="a"), [uri], model_parameters={"k": 2}))
    assert (job.state.name, job.model_version_id) == ("JOB_STATE_SUCCEEDED", "1")
    assert job.model.startswith(f"projects/{cloud.simulator.project_number}/")
    stats = job.completion_stats
    assert (stats.successful_count, stats.failed_count, stats.incomplete_count) == (30, 0, 0)
    assert job.resources_consumed.replica_hours > 0
    assert job.create_time <= job.start_time <= job.end_time
    found = cloud.output(job)
    assert sorted(found) == [
        "prediction.errors_stats-00000-of-00001",
        "prediction.results-00000-of-00002",
        "prediction.results-00001-of-00002",
    ]
    lines = _lines(found)
    assert [each["instance"] for each in lines] == list(range(30))
    assert [each["prediction"]["got"] for each in lines] == list(range(30))
    assert {each["prediction"]["parameters"]["k"] for each in lines} == {2}
    assert "/prediction-plain-" in job.output_info.gcs_output_directory


def test_a_key_stands_for_its_instance_and_is_not_sent(cloud: Any):
    uri = cloud.put("keyed.jsonl", _jsonl({"id": "r1", "x": 1}, {"id": "r2", "x": 2}))
    job = cloud.finished(cloud.job(cloud.model(), [uri], instance_config={"key_field": "id"}))
    lines = _lines(cloud.output(job))
    assert [(each["key"], each["prediction"]["got"]) for each in lines] == [("r1", {"x": 1}), ("r2", {"x": 2})]
    assert not any("instance" in each for each in lines)


@pytest.mark.parametrize(
    ("config", "got"),
    [
        ({"included_fields": ["b"]}, {"b": 2}),
        ({"excluded_fields": ["b"]}, {"a": 1, "c": 3}),
        ({"included_fields": ["c", "a"], "instance_type": "array"}, [3, 1]),
    ],
)
def test_fields_are_chosen_and_put_in_order(cloud: Any, config: dict[str, Any], got: Any):
    uri = cloud.put("fields.jsonl", _jsonl({"a": 1, "b": 2, "c": 3}))
    job = cloud.finished(cloud.job(cloud.model(), [uri], instance_config=config))
    assert _got(cloud.output(job)) == [got]


def test_rows_of_a_table_are_sent_as_arrays(cloud: Any):
    uri = cloud.put("table.csv", b'x,name,id\n1,"a, b",r1\n2.5,c,r2\n')
    job = cloud.finished(cloud.job(cloud.model(), [uri], form="csv", instance_config={"key_field": "id"}))
    lines = _lines(cloud.output(job))
    assert [(each["key"], each["prediction"]["got"]) for each in lines] == [("r1", [1, "a, b"]), ("r2", [2.5, "c"])]


def test_several_files_and_wildcards_are_read_and_a_missing_one_is_told(cloud: Any):
    for number in range(3):
        cloud.put(f"many/part-{number}.jsonl", _jsonl(number))
    job = cloud.finished(cloud.job(cloud.model(), ["gs://data/many/part-*.jsonl", "gs://data/many/nowhere.jsonl"]))
    assert job.state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert ["nowhere" in each.message for each in job.partial_failures] == [True]
    assert sorted(_got(cloud.output(job))) == [0, 1, 2]


def test_instances_that_are_sent_together_fail_together_and_the_job_succeeds(cloud: Any):
    uri = cloud.put("bad.jsonl", _jsonl(*range(8), "bad", *range(9, 20)))
    job = cloud.finished(cloud.job(cloud.model(), [uri]))
    stats = job.completion_stats
    assert (job.state.name, stats.successful_count, stats.failed_count) == ("JOB_STATE_SUCCEEDED", 16, 4)
    found = cloud.output(job)
    assert _got(found) == [*range(8), *range(12, 20)]
    (line,) = found["prediction.errors_stats-00000-of-00001"]
    assert line.startswith("('Post request fails. Cannot get predictions. Error: Exceeded retries: Non-OK result 422")
    assert line.endswith(", 4)")


def test_lines_that_cannot_be_sent_fail_by_themselves(cloud: Any):
    uri = cloud.put("broken.jsonl", b'{"id": 1, "x": 1}\n{broken\n{"x": 3}\n{"id": 4, "x": 4}\n')
    job = cloud.finished(cloud.job(cloud.model(), [uri], instance_config={"key_field": "id"}))
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (2, 2)
    found = cloud.output(job)
    assert [each["key"] for each in _lines(found)] == [1, 4]
    errors = found["prediction.errors_stats-00000-of-00001"]
    assert ["not valid JSON" in errors[0], "no key field" in errors[1]] == [True, True]


def test_the_names_of_the_api_s_description_tell_each_failed_instance(connect, wait_until, server, tmp_path):
    with Simulator(tmp_path, speed=2000, images={"mine": server}, batch_files="documented") as simulator:
        cloud = connect(simulator, wait_until)
        uri = cloud.put("bad.jsonl", _jsonl({"id": 1, "x": 1}, {"id": 2, "x": "bad"}))
        job = cloud.finished(cloud.job(cloud.model(), [uri], size=1, instance_config={"key_field": "id"}))
        found = cloud.output(job)
        cloud.close()
    assert sorted(found) == ["errors_0001.jsonl", "predictions_0001.jsonl"]
    (error,) = [json.loads(each) for each in found["errors_0001.jsonl"]]
    assert (error["key"], error["error"]["code"]) == (2, 2)
    assert "422" in error["error"]["message"]
    assert [json.loads(each)["key"] for each in found["predictions_0001.jsonl"]] == [1]


def test_a_job_whose_batches_mostly_fail_is_given_up(cloud: Any):
    uri = cloud.put("hopeless.jsonl", _jsonl(0, *["bad"] * 40))
    job = cloud.finished(cloud.job(cloud.model(), [uri], size=1))
    assert job.state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert job.completion_stats.incomplete_count > 0
    uri = cloud.put("hopeless.jsonl", _jsonl(*["bad"] * 3))
    job = cloud.finished(cloud.job(cloud.model(), [uri], size=1))
    assert (job.state.name, "422" in job.error.message) == ("JOB_STATE_FAILED", True)


@pytest.mark.parametrize(
    ("uris", "env", "words"),
    [(["gs://data/none.jsonl"], {}, "no instances"), (None, {"CRASH": "1"}, "exited unexpectedly")],
    ids=["no-file", "crash"],
)
def test_a_job_that_cannot_begin_fails_with_the_reason(cloud, uris, env, words):
    given = uris or [cloud.put("one.jsonl", _jsonl(1))]
    job = cloud.finished(cloud.job(cloud.model(**env), given))
    assert (job.state.name, words in job.error.message) == ("JOB_STATE_FAILED", True)


def test_a_job_that_is_cancelled_keeps_what_it_wrote(cloud: Any, wait_until: Any):
    """The model sleeps for an hour over the instance, which is far longer than the test waits."""
    uri = cloud.put("slow.jsonl", _jsonl(1))
    job = cloud.job(cloud.model(), [uri], model_parameters={"sleep": 3600})
    wait_until(lambda: cloud.job_state(job).state.name == "JOB_STATE_RUNNING", 30)
    with pytest.raises(told.FailedPrecondition, match="not in a final state"):
        cloud.jobs.delete_batch_prediction_job({"name": job.name}, timeout=30)
    cloud.jobs.cancel_batch_prediction_job({"name": job.name}, timeout=30)
    ended = cloud.finished(job)
    assert (ended.state.name, ended.error.code) == ("JOB_STATE_CANCELLED", 1)
    assert ended.completion_stats.incomplete_count == 1
    assert "prediction.results-00000-of-00001" in cloud.output(ended)
    with pytest.raises(told.FailedPrecondition, match="cannot be cancelled"):
        cloud.jobs.cancel_batch_prediction_job({"name": job.name}, timeout=30)
    assert not cloud.settle(cloud.jobs.delete_batch_prediction_job({"name": job.name}, timeout=30)).error.code
    with pytest.raises(told.NotFound):
        cloud.job_state(job)


def test_jobs_fail_and_rows_are_dropped_on_demand(cloud: Any, faults: Any):
    uri, model = cloud.put("ten.jsonl", _jsonl(*range(10))), cloud.model()
    faults.broken_jobs, faults.drop_rows_every = 1, 5
    assert cloud.finished(cloud.job(model, [uri])).state.name == "JOB_STATE_FAILED"
    job = cloud.finished(cloud.job(model, [uri]))
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (8, 2)


def test_a_job_has_no_id_of_its_caller_and_is_found_by_a_label(cloud: Any, parent: str):
    uri, model = cloud.put("one.jsonl", _jsonl(1)), cloud.model()
    jobs = [cloud.job(model, [uri], labels={"md-key": key}) for key in ("abc", "abc", "other")]
    asked = {"parent": parent, "filter": "labels.md-key=abc"}
    found = [each.name for each in cloud.jobs.list_batch_prediction_jobs(asked, timeout=30)]
    assert found == [jobs[1].name, jobs[0].name]
    for each in jobs:
        cloud.finished(each)
    ended = {"parent": parent, "filter": 'labels.md-key=abc AND state="JOB_STATE_SUCCEEDED"'}
    assert len(list(cloud.jobs.list_batch_prediction_jobs(ended, timeout=30))) == 2


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"display_name": ""}, told.InvalidArgument, "display_name"),
        ({"model": ""}, told.InvalidArgument, "Exactly one"),
        ({"model": "projects/rehearsal/locations/europe-west4/models/none"}, told.NotFound, "Model"),
        ({"dedicated_resources": None}, told.InvalidArgument, "dedicated_resources is required"),
        ({"instance_config": {"included_fields": ["a"], "excluded_fields": ["b"]}}, told.InvalidArgument, "both"),
        ({"instance_config": {"instance_type": "tree"}}, told.InvalidArgument, "instance_type"),
        ({"input_config": {"instances_format": "parquet"}}, told.InvalidArgument, "parquet"),
        ({"input_config": {"instances_format": "bigquery"}}, told.MethodNotImplemented, "not simulated"),
        ({"output_config": {"predictions_format": "csv"}}, told.InvalidArgument, "jsonl is"),
        ({"labels": {"Md": "x"}}, told.InvalidArgument, "Label"),
        ({"generate_explanation": True}, told.MethodNotImplemented, "Explanations"),
        ({"input_config": {"instances_format": "jsonl"}}, told.InvalidArgument, "uris"),
        (
            {"output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "/tmp"}}},
            told.InvalidArgument,
            "output_uri_prefix",
        ),
        ({"instance_config": {"key_field": "a", "included_fields": ["a"]}}, told.InvalidArgument, "key_field"),
        ({"form": "csv", "instance_config": {"included_fields": ["a"]}}, told.InvalidArgument, "csv"),
        ({"form": "csv", "instance_config": {"instance_type": "object"}}, told.InvalidArgument, "csv"),
        (
            {
                "model": "",
                "unmanaged_container_model": {"artifact_uri": "gs://x/y", "container_spec": {"image_uri": "mine"}},
            },
            told.MethodNotImplemented,
            "upload the model",
        ),
    ],
)
def test_what_a_job_must_not_be_is_refused(cloud, change, error, words):
    model = change.get("model")
    with pytest.raises(error, match=words):
        cloud.job(
            cloud.model() if model is None else model,
            ["gs://data/x.jsonl"],
            **{key: change[key] for key in change if key != "model"},
        )


def test_a_container_that_is_no_model_predicts_as_well(cloud: Any):
    uri = cloud.put("one.jsonl", _jsonl(1))
    job = cloud.finished(
        cloud.job("", [uri], unmanaged_container_model={"container_spec": cloud.container(NAME="bare")})
    )
    assert (job.state.name, job.model) == ("JOB_STATE_SUCCEEDED", "")
    assert [each["prediction"]["by"] for each in _lines(cloud.output(job))] == ["bare"]


@pytest.mark.parametrize(
    ("data", "form", "config", "words"),
    [
        (_jsonl([1, 2]), "jsonl", {"key_field": "id"}, "must be a JSON object"),
        (_jsonl({"a": 1}), "jsonl", {"included_fields": ["b"]}, "no field 'b'"),
        (_jsonl({"a": 1}), "jsonl", {"instance_type": "array"}, "included_fields must be set"),
        (b"a,b\n1\n", "csv", {}, "1 columns, and the header 2"),
    ],
    ids=["no-object", "no-field", "no-order", "short-row"],
)
def test_an_instance_that_cannot_be_made_fails_and_says_why(cloud, data, form, config, words):
    uri = cloud.put(f"{cloud.name()}.{form}", data)
    job = cloud.finished(cloud.job(cloud.model(), [uri], form=form, instance_config=config))
    assert (job.state.name, words in job.error.message) == ("JOB_STATE_FAILED", True)


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\xfe\n", "not csv"), (b"a\n1\n", "no column 'id'")], ids=["bytes", "key"]
)
def test_a_table_that_is_none_is_left_out(cloud, data, words):
    uri = cloud.put(f"{cloud.name()}.csv", data)
    job = cloud.finished(cloud.job(cloud.model(), [uri], form="csv", instance_config={"key_field": "id"}))
    assert (job.state.name, words in job.partial_failures[0].message) == ("JOB_STATE_FAILED", True)


def test_a_model_server_that_ends_is_started_again_and_only_its_batch_fails(cloud: Any):
    uri = cloud.put("deadly.jsonl", _jsonl("exit", 1, 2))
    job = cloud.finished(cloud.job(cloud.model(), [uri], size=1))
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (2, 1)
    (line,) = cloud.output(job)["prediction.errors_stats-00000-of-00001"]
    assert "Non-OK result 503" in line


@pytest.mark.parametrize("body", ["none", "short"])
def test_an_answer_that_is_no_prediction_fails_its_batch(cloud, body):
    uri = cloud.put(f"{body}.jsonl", _jsonl(body))
    job = cloud.finished(cloud.job(cloud.model(), [uri]))
    assert (job.state.name, "predictions" in job.error.message) == ("JOB_STATE_FAILED", True)


def test_output_into_a_bucket_that_is_not_there_fails(cloud: Any):
    config = {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "gs://no-such-bucket/out"}}
    job = cloud.finished(cloud.job(cloud.model(), [cloud.put("one.jsonl", _jsonl(1))], output_config=config))
    assert (job.state.name, "no-such-bucket" in job.error.message) == ("JOB_STATE_FAILED", True)
