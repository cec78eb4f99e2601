"""The model registry: versions, aliases, names, and what is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.api_core import exceptions as told
from google.cloud import aiplatform_v1 as v1
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.simulate.vertex.errors import ServiceError
from modeldeploy.simulate.vertex.registry import Entry


def _aliases(cloud: Any, name: str) -> list[str]:
    return sorted(cloud.models.get_model({"name": name}, timeout=30).version_aliases)


def test_the_first_version_is_the_default_and_later_ones_are_not(cloud: Any):
    first = cloud.upload("one", labels={"md-digest": "abc"})
    second = cloud.upload(parent_model=first.model)
    assert (first.model_version_id, second.model_version_id) == ("1", "2")
    assert first.model == f"projects/{cloud.simulator.project_number}/locations/europe-west4/models/one"
    model = cloud.models.get_model({"name": first.model}, timeout=30)
    assert (model.version_id, dict(model.labels), list(model.version_aliases)) == (
        "1",
        {"md-digest": "abc"},
        ["default"],
    )
    assert _aliases(cloud, f"{first.model}@2") == []


def test_an_alias_is_at_one_version_only_and_moves_when_it_is_given_anew(cloud: Any):
    name = cloud.upload(cloud.name(), version_aliases=["golden"]).model
    cloud.upload(parent_model=name)
    assert cloud.models.get_model({"name": f"{name}@golden"}, timeout=30).version_id == "1"
    merge = cloud.models.merge_version_aliases
    merge({"name": f"{name}@2", "version_aliases": ["golden", "default", "prod"]}, timeout=30)
    assert (_aliases(cloud, f"{name}@1"), _aliases(cloud, f"{name}@2")) == ([], ["default", "golden", "prod"])
    merge({"name": f"{name}@2", "version_aliases": ["-prod"]}, timeout=30)
    assert _aliases(cloud, f"{name}@2") == ["default", "golden"]
    with pytest.raises(told.InvalidArgument, match="default alias"):
        merge({"name": f"{name}@2", "version_aliases": ["-default"]}, timeout=30)


def test_versions_are_listed_the_latest_first_a_page_at_a_time(cloud: Any):
    name = cloud.upload(cloud.name(), labels={"n": "1"}).model
    for number in "23":
        cloud.upload(parent_model=name, labels={"n": number})
    pages = cloud.models.list_model_versions({"name": name, "page_size": 2}, timeout=30)
    assert [each.version_id for each in pages] == ["3", "2", "1"]
    found = cloud.models.list_model_versions({"name": name, "filter": "labels.n=2"}, timeout=30)
    assert [each.version_id for each in found] == ["2"]


def test_models_are_found_by_labels_and_by_their_names(cloud: Any, parent: str):
    name = cloud.upload(cloud.name(), labels={"which": "this"}, display_name="looked for").model
    for asked in ('labels.which="this"', 'display_name="looked for"', 'displayName="looked for" AND labels.which:*'):
        found = cloud.models.list_models({"parent": parent, "filter": asked}, timeout=30)
        assert [each.name for each in found] == [name]
    assert not list(cloud.models.list_models({"parent": parent, "filter": "labels.which=that"}, timeout=30))
    with pytest.raises(told.InvalidArgument, match="filter"):
        cloud.models.list_models({"parent": parent, "filter": "colour=red"}, timeout=30)


@pytest.mark.parametrize(
    ("model_id", "change", "words"),
    [
        ("Upper", {}, "model_id"),
        ("", {"display_name": ""}, "display_name is required"),
        ("", {"labels": {"Key": "value"}}, "Label"),
        ("", {"labels": {"key": "x" * 65}}, "Label"),
        ("", {"version_aliases": ["1st"]}, "version alias"),
        ("", {"container_spec": {"image_uri": ""}}, "container_spec"),
        ("", {"artifact_uri": "/home/me"}, "Cloud Storage URI"),
        ("", {"container_spec": {"image_uri": "x", "env": [{"name": "AIP_MODE", "value": "y"}]}}, "reserved"),
        ("", {"container_spec": {"image_uri": "x", "health_route": "ping"}}, "must begin with"),
        ("", {"container_spec": {"image_uri": "x", "ports": [{"container_port": 70_000}]}}, "no port"),
    ],
)
def test_what_a_model_must_not_be_is_refused_before_anything_begins(cloud, parent, model_id, change, words):
    model = {"display_name": "m", "container_spec": {"image_uri": "mine"}, **change}
    before = cloud.simulator.calls["UploadModel"]
    with pytest.raises(told.InvalidArgument, match=words):
        cloud.models.upload_model({"parent": parent, "model": model, "model_id": model_id}, timeout=30)
    assert cloud.simulator.calls["UploadModel"] == before + 1


def test_an_id_is_taken_while_its_model_is_still_being_uploaded(cloud: Any, parent: str, faults: Any):
    faults.stuck["UploadModel"] = 1
    request = {
        "parent": parent,
        "model_id": cloud.name(),
        "model": {"display_name": "m", "container_spec": cloud.container()},
    }
    started = cloud.models.upload_model(request, timeout=30)
    with pytest.raises(told.AlreadyExists):
        cloud.models.upload_model(request, timeout=30)
    with pytest.raises(told.NotFound):
        cloud.models.get_model({"name": f"{parent}/models/{request['model_id']}"}, timeout=30)
    cloud.models.cancel_operation({"name": started.operation.name}, timeout=30)
    assert cloud.settle(started).error.code == 1
    # What was cancelled is not there, and its id is free again.
    cloud.done(cloud.models.upload_model(request, timeout=30), v1.UploadModelResponse)


def test_files_that_are_not_there_end_the_upload_in_an_error(cloud: Any, parent: str):
    model = {"display_name": "m", "container_spec": cloud.container(), "artifact_uri": "gs://nowhere/model"}
    started = cloud.models.upload_model({"parent": parent, "model": model}, timeout=30)
    error = cloud.settle(started).error
    assert (error.code, "gs://nowhere/model" in error.message) == (3, True)


def test_a_version_keeps_its_files_whatever_is_uploaded_to_their_place_later(cloud: Any):
    uri = cloud.put("m/weights", b"old").rpartition("/")[0]
    name = cloud.upload(cloud.name(), artifact_uri=uri).model
    cloud.put("m/weights", b"new")
    managed = cloud.storage.bucket("caip-tenant-rehearsal")
    kept = managed.blob(f"{name.rpartition('/')[2]}/1/artifacts/weights")
    assert kept.download_as_bytes() == b"old"
    cloud.settle(cloud.models.delete_model({"name": name}, timeout=30))
    assert not kept.exists()


def test_only_a_version_that_is_neither_the_default_nor_deployed_is_deleted(cloud: Any):
    name = cloud.upload(cloud.name()).model
    with pytest.raises(told.InvalidArgument, match="version id"):
        cloud.models.delete_model_version({"name": name}, timeout=30)
    only = cloud.settle(cloud.models.delete_model_version({"name": f"{name}@1"}, timeout=30))
    assert (only.error.code, "only version" in only.error.message) == (9, True)
    cloud.upload(parent_model=name)
    default = cloud.settle(cloud.models.delete_model_version({"name": f"{name}@1"}, timeout=30))
    assert (default.error.code, "default" in default.error.message) == (9, True)
    assert not cloud.settle(cloud.models.delete_model_version({"name": f"{name}@2"}, timeout=30)).error.code
    with pytest.raises(told.NotFound):
        cloud.models.get_model({"name": f"{name}@2"}, timeout=30)
    # A number is never given twice.
    assert cloud.upload(parent_model=name).model_version_id == "3"


def test_what_people_read_is_changed_if_the_etag_is_right(cloud: Any):
    name = cloud.upload(cloud.name()).model
    model = cloud.models.get_model({"name": name}, timeout=30)
    wanted = {"name": name, "description": "better", "etag": model.etag}
    request = {"model": wanted, "update_mask": {"paths": ["description"]}}
    assert cloud.models.update_model(request, timeout=30).description == "better"
    with pytest.raises(told.Aborted, match="etag"):
        cloud.models.update_model(request, timeout=30)
    with pytest.raises(told.InvalidArgument, match="update_mask"):
        cloud.models.update_model({"model": {"name": name}, "update_mask": {"paths": ["artifact_uri"]}}, timeout=30)


@pytest.mark.parametrize(
    ("parent_name", "error"),
    [
        ("projects/other/locations/europe-west4", told.PermissionDenied),
        ("projects/rehearsal/locations/us-central1", told.InvalidArgument),
        ("locations/europe-west4", told.InvalidArgument),
    ],
)
def test_another_project_or_region_is_refused(cloud: Any, parent_name: str, error: type[Exception]):
    with pytest.raises(error):
        list(cloud.models.list_models({"parent": parent_name}, timeout=30))


_UPLOAD = st.lists(st.sampled_from(["golden", "prod", "default"]), unique=True).map(lambda each: ("upload", each))
_MERGE = st.tuples(
    st.integers(1, 5), st.lists(st.sampled_from(["golden", "-golden", "prod", "-prod", "default"]), unique=True)
)
_REMOVE = st.integers(1, 5)


@given(st.lists(_UPLOAD | _MERGE | _REMOVE, max_size=15))
def test_whatever_is_done_each_alias_is_at_one_version_and_default_always_at_some(acts: list[Any]):
    entry = Entry("projects/1/locations/x/models/m", "m", None)
    entry.add(entry.next(), v1.Model())
    for act in acts:
        with contextlib.suppress(ServiceError):
            _do(entry, act)
        aliases = [alias for number in entry.versions for alias in entry.told(number).version_aliases]
        assert len(set(aliases)) == len(aliases)
        assert "default" in aliases
        assert entry.version("") == entry.aliases["default"]
        assert entry.last >= max(int(number) for number in entry.versions)


def _do(entry: Entry, act: Any) -> None:
    if isinstance(act, int):
        entry.remove(entry.version(str(act)))
    elif act[0] == "upload":
        entry.add(entry.next(), v1.Model(version_aliases=act[1]))
    else:
        entry.merge(entry.version(str(act[0])), act[1])


def test_a_version_of_another_id_than_its_model_is_refused(cloud: Any, parent: str):
    name = cloud.upload(cloud.name()).model
    request = {
        "parent": parent,
        "parent_model": name,
        "model_id": "other",
        "model": {"display_name": "m", "container_spec": cloud.container()},
    }
    with pytest.raises(told.InvalidArgument, match="different models"):
        cloud.models.upload_model(request, timeout=30)
