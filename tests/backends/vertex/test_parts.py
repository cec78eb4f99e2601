"""The pure parts: ids, labels, options, hardware, settings, messages, distributions, and the files of batch jobs."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from modeldeploy.backends.vertex import (
    Vertex,
    VertexEndpointOptions,
    VertexOptions,
    entry,
    metrics,
    names,
    settings,
    translate,
)
from modeldeploy.backends.vertex.batch_runs import KEY, in_order, is_answers, keyed, read
from modeldeploy.backends.vertex.capabilities import CAPABILITIES
from modeldeploy.backends.vertex.described import table
from modeldeploy.backends.vertex.hardware import Machine, choose
from modeldeploy.backends.vertex.logs import _text, _time
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.errors import ConfigurationError, IntegrityError, UnsupportedError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.metrics import Window, bucket_end
from modeldeploy.values.serving import EndpointSpec, Hardware, Revision, Scale

# Ids and labels


@given(some.from_regex(r"v[0-9a-z-]{1,30}", fullmatch=True))
def test_a_deployed_id_has_ten_digits_and_is_the_same_whoever_asks(revision):
    found = names.deployed_id(revision)
    assert re.fullmatch(r"[1-9][0-9]{9}", found)
    assert found == names.deployed_id(revision)


@pytest.mark.parametrize(
    "labels", [{"Team": "ml"}, {"team": "ML"}, {"team": "x" * 64}, {"": "x"}, {"modeldeploy-x": "y"}]
)
def test_labels_that_the_service_would_refuse_are_refused_first(labels):
    with pytest.raises(ConfigurationError):
        Vertex(project="p", location="l", labels=labels)


# Options and hardware


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"machine_type": "Standard_DS3"}, "machine_type"),
        ({"accelerator": "t4"}, "accelerator"),
        ({"accelerator_count": "1"}, "accelerator_count"),
        ({"image": "a b"}, "image"),
        ({"image": "a/b", "base_image": "c/d"}, "base_image"),
        ({"least_replicas": "2"}, "least_replicas"),
        ({"most_replicas": "2", "least_replicas": "3"}, "least_replicas"),
        ({"most_replicas": "101", "least_replicas": "1"}, "most_replicas"),
        ({"cpu_percent": "50"}, "cpu_percent"),
        ({"startup_s": "7201"}, "startup_s"),
        ({"no_such": "1"}, "no_such"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_option_is_refused_by_name(options, named):
    with pytest.raises(ConfigurationError, match=named):
        VertexOptions.read(options, "revision")


def test_a_timeout_of_ones_own_needs_a_dedicated_endpoint():
    with pytest.raises(ConfigurationError, match="inference_timeout_s"):
        VertexEndpointOptions(inference_timeout_s=100)
    assert VertexEndpointOptions(dedicated=True, inference_timeout_s=100).inference_timeout_s == 100


@pytest.mark.parametrize(
    ("hardware", "options", "machine"),
    [
        (Hardware(), {}, Machine("n1-standard-2")),
        (Hardware(cpu=4, memory_gb=10), {}, Machine("e2-standard-4")),
        (Hardware(accelerator="t4"), {}, Machine("n1-standard-4", "NVIDIA_TESLA_T4", 1)),
        (Hardware(accelerator="l4", accelerator_count=2), {}, Machine("g2-standard-24", "NVIDIA_L4", 2)),
        (Hardware(cpu=4), {"machine_type": "c3-standard-8"}, Machine("c3-standard-8")),
        (Hardware(), {"accelerator": "NVIDIA_TESLA_T4"}, Machine("n1-standard-2", "NVIDIA_TESLA_T4", 1)),
    ],
    ids=str,
)
def test_hardware_becomes_a_machine_with_its_accelerators(hardware, options, machine):
    assert choose(hardware, VertexOptions.read(options, "revision"), "n1-standard-2") == machine


def test_hardware_that_no_machine_has_is_refused_with_the_option_that_can():
    with pytest.raises(ConfigurationError, match="VertexOptions"):
        choose(Hardware(cpu=1000), VertexOptions(), "n1-standard-2")


def test_an_accelerator_that_the_package_does_not_know_is_refused_with_those_that_it_does():
    with pytest.raises(ConfigurationError, match="NVIDIA_TESLA_T4"):
        translate.accelerator("NVIDIA_NO_SUCH")


# Settings


def test_settings_are_read_by_name_and_a_wrong_one_is_refused():
    found = settings.arguments({"project": "p", "labels": "team=ml, cost=a", "batch_rows_per_request": "8"})
    assert found == {"project": "p", "labels": {"team": "ml", "cost": "a"}, "batch_terms": Terms(rows_per_request=8)}
    with pytest.raises(ConfigurationError, match="zone"):
        settings.arguments({"zone": "x"})
    with pytest.raises(ConfigurationError, match="labels"):
        settings.arguments({"labels": "team"})
    with pytest.raises(ConfigurationError, match="rows_per_part"):
        settings.arguments({"batch_rows_per_part": "many"})


def test_what_googles_own_variables_say_counts_where_nothing_was_given():
    environ = {"GOOGLE_CLOUD_PROJECT": "theirs", "GOOGLE_CLOUD_REGION": "europe-west4"}
    assert settings.where({}, environ) == {"project": "theirs", "location": "europe-west4", "bucket": ""}
    assert settings.where({"project": "mine", "bucket": "gs://b/"}, environ)["project"] == "mine"
    assert settings.where({"bucket": "gs://b/"}, {})["bucket"] == "b"


def test_what_is_missing_is_told_with_the_command_that_shows_it():
    with pytest.raises(ConfigurationError, match="project") as caught:
        Vertex(location="europe-west4").check()
    assert "gcloud projects list" in caught.value.hint
    with pytest.raises(ConfigurationError, match="golden"):
        Vertex(project="p", location="l", golden="perhaps")


def test_skipping_golden_outputs_is_said_and_shows():
    assert Vertex(project="p", location="l").capabilities.staging
    skipped = Vertex(project="p", location="l", golden="skip").capabilities
    assert not skipped.staging
    assert "golden='skip'" in skipped.why_not["staging"]


@pytest.mark.parametrize("capability", ["shadow", "pinned_invoke", "sticky", "scale_to_zero", "edge", "safe_canary"])
def test_what_it_cannot_do_is_refused_with_a_reason(capability):
    with pytest.raises(UnsupportedError, match=capability) as caught:
        CAPABILITIES.require(capability, backend="vertex")
    assert len(str(caught.value)) > 60


# Messages


@pytest.fixture(scope="module")
def revision(shelf):
    return Revision.of(
        shelf[1][0],
        scale=Scale(2),
        options={"least_replicas": "1", "most_replicas": "5", "spot": "true", "cpu_percent": "70"},
    )


def test_a_revision_goes_to_a_version_of_a_model_and_back(revision):
    defaults = translate.Defaults(labels={"team": "ml"})
    model = translate.model(revision, entry.contained("x/y:1"), "gs://b/m", {"MORE": "1"}, defaults)
    assert translate.revision(model) == revision
    assert model.version_aliases == [revision.id]
    assert model.labels["team"] == "ml"
    assert all(len(value) <= 63 for value in model.labels.values())
    assert model.container_spec.predict_route.startswith("/")


def test_a_record_that_was_changed_is_noticed(revision):
    model = translate.model(revision, entry.contained("x/y:1"), "gs://b/m", {}, translate.Defaults())
    other = translate.model(Revision.of(revision.model), entry.contained("x/y:1"), "gs://b/m", {}, translate.Defaults())
    model.container_spec.env = other.container_spec.env
    with pytest.raises(IntegrityError, match="was changed"):
        translate.revision(model)


def test_what_others_registered_is_no_revision_of_ours():
    model = translate.types().Model(display_name="theirs", labels={"a": "b"})
    assert translate.revision(model) is None


def test_replicas_machine_and_spot_are_those_that_were_asked_for(revision):
    made = translate.deployed_model(
        revision, "m@1", translate.Defaults(machine_type="n1-standard-8")
    ).dedicated_resources
    assert (made.min_replica_count, made.max_replica_count, made.spot) == (1, 5, True)
    assert made.machine_spec.machine_type == "n1-standard-8"
    assert [each.target for each in made.autoscaling_metric_specs] == [70]


def test_a_dedicated_endpoint_is_asked_for_with_its_timeout():
    spec = EndpointSpec("mine", dict(VertexEndpointOptions(dedicated=True, inference_timeout_s=900)))
    made = translate.endpoint(spec, translate.Defaults())
    assert made.dedicated_endpoint_enabled
    assert made.client_connection_config.inference_timeout.total_seconds() == 900


def test_a_split_is_read_by_revisions_and_one_that_is_not_whole_is_none():
    assert table({"1": 90, "2": 10, "3": 0}, {"1": "a", "2": "b", "3": "c"}).live == {"a": 90, "b": 10}
    assert table({"1": 90}, {"1": "a"}).live == {}
    assert table({}, {}).live == {}


# The container


def test_the_start_of_a_container_is_python_that_compiles_and_expands_no_variable(shelf):
    model = shelf[1][0]
    made = entry.generated(Bundle.open(model.uri))
    assert made.image.startswith("mirror.gcr.io/library/python:3.")
    program, flag, text = made.command
    assert (program, flag) == ("python", "-c")
    compile(text, "start", "exec")
    assert "$(" not in text
    assert "import modeldeploy" not in text
    assert "from modeldeploy" not in text


def test_the_place_of_a_shipment_follows_from_its_content(shelf):
    one, two = (entry.Shipment.of(Bundle.open(model.uri)) for model in shelf[1][:2])
    assert one.place != two.place
    assert one.place == entry.Shipment.of(Bundle.open(shelf[1][0].uri)).place
    assert {"bundle/manifest.json", "modeldeploy.zip", "requirements.txt"} <= {each.name for each in one.files}


# Files of batch jobs


def test_rows_bear_keys_on_their_way():
    lines = [orjson.loads(line) for line in keyed("part-00000.0-2.jsonl", [b'[1.5,"x"]', b'[2,"y"]']).splitlines()]
    assert lines[1] == {KEY: "part-00000.0-2.jsonl:1", "modeldeploy_row": [2, "y"]}


@given(some.permutations(range(6)), some.sets(some.integers(0, 5)))
def test_answers_come_back_in_the_rows_order_whatever_order_they_were_written_in(order, failed):
    name = "part-00003.10-16.jsonl"
    lines = [
        {
            "key": f"{name}:{row}",
            **({"error": {"code": 3, "message": f"no {row}"}} if row in failed else {"prediction": row}),
        }
        for row in order
    ]
    found = dict(read(b"\n".join(map(orjson.dumps, lines))))
    answers = [json.loads(line) for line in in_order(name, found).splitlines()]
    assert answers == [{"modeldeploy_error": f"no {row}"} if row in failed else row for row in range(6)]


def test_a_file_that_lacks_an_answer_has_not_come_back():
    name = "part-00000.0-2.jsonl"
    assert in_order(name, {f"{name}:0": 1}) is None
    assert in_order("something.jsonl", {}) is None


def test_lines_that_are_none_of_ours_are_passed_over():
    data = b'not json\n{"key": 5, "prediction": 1}\n[1]\n{"stats": 3}\n{"instance": {"modeldeploy_key": "p:0"}, "error": "bad"}\n'
    assert dict(read(data)) == {"p:0": {"modeldeploy_error": "bad"}}


@pytest.mark.parametrize(
    "name",
    [
        "prediction.results-00000-of-00003",
        "prediction.errors_stats-00000-of-00001",
        "predictions_0001.jsonl",
        "errors_0001.jsonl",
    ],
)
def test_files_are_found_under_the_names_of_practice_and_of_the_documentation(name):
    assert is_answers(f"place/prediction-m-2026/{name}")
    assert not is_answers("place/other.txt")


# Logs and metrics


def test_lines_are_read_whatever_form_their_entry_has():
    assert _text({"textPayload": "plain\n"}) == "plain"
    assert _text({"jsonPayload": {"message": "told", "levelname": "INFO"}}) == "told"
    assert _text({"jsonPayload": {"a": 1}}) == '{"a": 1}'
    assert _time({"timestamp": "2026-01-02T03:04:05.123456789Z"}) == pytest.approx(1767323045.123456)
    assert _time({"timestamp": "2026-01-02T03:04:05Z"}) == 1767323045.0


def point(value, end="2026-01-01T00:01:00Z"):
    return {"interval": {"startTime": "2026-01-01T00:00:00Z", "endTime": end}, "value": value}


START = 1767225600.0


def test_counts_and_distributions_become_a_window():
    counted = [
        {"metric": {"labels": {"response_code": code}}, "points": [point({"int64Value": str(count)})]}
        for code, count in (("200", 7), ("422", 2), ("500", 1))
    ]
    late = point({"int64Value": "99"}, end="2026-01-01T00:02:00Z")
    counted[0]["points"].append(late)
    spread = {"bucketOptions": {"exponentialBuckets": {"numFiniteBuckets": 3, "growthFactor": 2.0, "scale": 10.0}},
              "bucketCounts": ["1", "4", "3", "1", "1"], "range": {"max": 200.0}}  # fmt: skip
    timed = [{"points": [point({"distributionValue": spread})]}]
    found = metrics.put_together(Window("v1", 0.0, 1.0), counted, timed, START, START + 60)
    assert (found.requests, found.errors, sum(found.latency.values())) == (10, 1, 10)
    ends = sorted(bucket_end(int(bucket)) for bucket in found.latency)
    assert ends[0] >= 0.010
    assert 0.2 <= ends[-1] < 0.22


@given(some.lists(some.integers(0, 50), min_size=1, max_size=12), some.floats(1.05, 3.0), some.floats(0.1, 20.0))
def test_no_distribution_loses_an_answer_or_makes_one_faster_than_its_bucket(counts, growth, scale):
    options = {"exponentialBuckets": {"numFiniteBuckets": len(counts), "growthFactor": growth, "scale": scale}}
    found = list(metrics._buckets({"bucketOptions": options, "bucketCounts": list(map(str, counts))}))
    assert sum(count for _bucket, count in found) == sum(counts)
    wanted = [scale * growth**number * 1e-3 for number, count in enumerate(counts) if count]
    for (bucket, _count), upper in zip(found, wanted, strict=True):
        assert bucket == 200 or bucket_end(bucket) >= upper * (1 - 1e-6)


@pytest.mark.parametrize(
    ("code", "is_error"), [("200", False), ("2xx", False), ("404", False), ("500", True), ("5xx", True), ("", True)]
)
def test_only_the_services_own_faults_are_errors(code, is_error):
    assert metrics.is_error(code) is is_error
