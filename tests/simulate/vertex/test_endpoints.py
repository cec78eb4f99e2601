"""Endpoints: ids, etags, and traffic tables that are replaced as a whole."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.api_core import exceptions as told
from google.cloud import aiplatform_v1 as v1
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.simulate.vertex.checks import check_split
from modeldeploy.simulate.vertex.errors import ServiceError


def test_an_endpoint_is_there_when_its_operation_has_ended_and_not_before(cloud: Any, parent: str, faults: Any):
    faults.stuck["CreateEndpoint"] = 1
    request = {"parent": parent, "endpoint_id": cloud.name(), "endpoint": {"display_name": "e"}}
    started = cloud.endpoints.create_endpoint(request, timeout=30)
    name = f"{parent}/endpoints/{request['endpoint_id']}"
    with pytest.raises(told.NotFound):
        cloud.get(name)
    with pytest.raises(told.AlreadyExists):
        cloud.endpoints.create_endpoint(request, timeout=30)
    cloud.endpoints.cancel_operation({"name": started.operation.name}, timeout=30)
    cloud.settle(started)
    made = cloud.done(cloud.endpoints.create_endpoint(request, timeout=30), v1.Endpoint)
    assert cloud.get(name) == made
    assert made.name.startswith(f"projects/{cloud.simulator.project_number}/")
    with pytest.raises(told.AlreadyExists):
        cloud.endpoints.create_endpoint(request, timeout=30)


@pytest.mark.parametrize("endpoint_id", ["Upper", "a-", "012", "1234567890", "a" * 64, "a_b"])
def test_an_id_outside_of_the_grammar_is_refused(cloud: Any, parent: str, endpoint_id: str):
    with pytest.raises(told.InvalidArgument, match="endpoint_id"):
        cloud.endpoints.create_endpoint(
            {"parent": parent, "endpoint_id": endpoint_id, "endpoint": {"display_name": "e"}}, timeout=30
        )


def test_an_endpoint_without_an_id_gets_a_long_number(cloud: Any, parent: str):
    request = {"parent": parent, "endpoint": {"display_name": "e"}}
    made = cloud.done(cloud.endpoints.create_endpoint(request, timeout=30), v1.Endpoint)
    assert len(made.name.rpartition("/")[2]) == 19


def test_a_dedicated_endpoint_has_a_host_of_its_own(cloud: Any):
    endpoint = cloud.get(cloud.endpoint("dedicated", dedicated_endpoint_enabled=True))
    number = cloud.simulator.project_number
    assert endpoint.dedicated_endpoint_dns == f"dedicated.europe-west4-{number}.prediction.vertexai.goog"


def test_a_change_with_an_old_etag_is_refused_and_changes_nothing(cloud: Any):
    name = cloud.serve(NAME="a")
    before = cloud.get(name)
    cloud.split(name, {}, etag=before.etag)
    with pytest.raises(told.Aborted, match="etag"):
        cloud.split(name, {"1": 100}, etag=before.etag)
    assert dict(cloud.get(name).traffic_split) == {}
    # Who sends no etag changes it whatever it is.
    assert dict(cloud.split(name, {"1": 100}).traffic_split) == {"1": 100}


def test_somebody_else_may_change_an_endpoint_just_before(cloud: Any, faults: Any):
    name = cloud.serve(NAME="a")
    faults.race["UpdateEndpoint"] = 1
    with pytest.raises(told.Aborted):
        cloud.split(name, {"1": 100}, etag=cloud.get(name).etag)
    cloud.split(name, {"1": 100}, etag=cloud.get(name).etag)


@pytest.mark.parametrize("split", [{"1": 99}, {"1": 101}, {"2": 100}, {"1": 110, "2": -10}])
def test_a_split_that_is_none_is_refused(cloud: Any, split: dict[str, int]):
    name = cloud.serve(NAME="a")
    with pytest.raises(told.InvalidArgument, match=r"[Ss]plit"):
        cloud.split(name, split)
    assert dict(cloud.get(name).traffic_split) == {"1": 100}


@given(st.dictionaries(st.sampled_from("123456"), st.integers(-5, 105)))
def test_a_split_holds_exactly_when_it_is_empty_or_whole_and_of_known_models(split: dict[str, int]):
    known = set("1234")
    right = not split or (sum(split.values()) == 100 and min(split.values()) >= 0 and set(split) <= known)
    expected = contextlib.nullcontext() if right else pytest.raises(ServiceError, match="INVALID_ARGUMENT")
    with expected:
        check_split(split, known)


def test_only_some_fields_can_be_changed_and_a_mask_is_needed(cloud: Any):
    name = cloud.endpoint()
    for paths in ([], ["dedicated_endpoint_enabled"], ["name"]):
        request = {"endpoint": {"name": name}, "update_mask": {"paths": paths}}
        with pytest.raises(told.InvalidArgument, match="update_mask"):
            cloud.endpoints.update_endpoint(request, timeout=30)
    request = {"endpoint": {"name": name, "labels": {"team": "a"}}, "update_mask": {"paths": ["labels"]}}
    assert dict(cloud.endpoints.update_endpoint(request, timeout=30).labels) == {"team": "a"}


def test_endpoints_are_found_by_their_labels(cloud: Any, parent: str):
    name = cloud.endpoint(labels={"which": "this-one"})
    found = cloud.endpoints.list_endpoints({"parent": parent, "filter": "labels.which=this-one"}, timeout=30)
    assert [each.name for each in found] == [name]


def test_an_endpoint_with_something_deployed_cannot_be_deleted(cloud: Any):
    name = cloud.serve(NAME="a")
    with pytest.raises(told.FailedPrecondition, match="Undeploy"):
        cloud.endpoints.delete_endpoint({"name": name}, timeout=30)
    request = {"endpoint": name, "deployed_model_id": "1", "traffic_split": {}}
    cloud.done(cloud.endpoints.undeploy_model(request, timeout=30), v1.UndeployModelResponse)
    assert not cloud.settle(cloud.endpoints.delete_endpoint({"name": name}, timeout=30)).error.code
    with pytest.raises(told.NotFound):
        cloud.get(name)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"display_name": ""}, told.InvalidArgument, "display_name"),
        ({"display_name": "x" * 129}, told.InvalidArgument, "128"),
        ({"labels": {f"k{number}": "" for number in range(65)}}, told.InvalidArgument, "labels"),
        ({"traffic_split": {"1": 100}}, told.InvalidArgument, "traffic_split"),
        ({"network": "projects/1/global/networks/mine"}, told.MethodNotImplemented, "Private"),
    ],
    ids=["no-name", "long-name", "many-labels", "split", "network"],
)
def test_what_an_endpoint_must_not_be_is_refused(cloud, parent, change, error, words):
    with pytest.raises(error, match=words):
        cloud.endpoints.create_endpoint({"parent": parent, "endpoint": {"display_name": "e", **change}}, timeout=30)
