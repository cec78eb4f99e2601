"""Predictions: the router, bodies passed on as they are, errors of containers, limits, and time."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from google.api import httpbody_pb2
from google.api_core import exceptions as told
from google.protobuf import json_format, struct_pb2


def test_requests_are_shared_out_by_the_split(cloud: Any):
    endpoint = cloud.endpoint()
    cloud.deploy(endpoint, cloud.model(NAME="a"), "1", {"0": 100})
    cloud.deploy(endpoint, cloud.model(NAME="b"), "2", {"1": 80, "0": 20})
    seen = Counter(cloud.by(endpoint) for _number in range(300))
    # 20 percent of 300 are 60; the borders are nine standard deviations away.
    assert set(seen) == {"a", "b"}
    assert 1 <= seen["b"] <= 122
    cloud.split(endpoint, {"1": 0, "2": 100})
    assert {cloud.by(endpoint) for _number in range(40)} == {"b"}


def test_a_raw_body_reaches_the_container_as_it_is(cloud: Any):
    endpoint = cloud.serve()
    assert cloud.raw(endpoint, b"\x00\xff", kind="application/x-tensor") == b"application/x-tensor \x00\xff"
    answer = json.loads(cloud.raw(endpoint, {"instances": [1, 1.5, {"x": "y"}], "parameters": {"k": 2}}))
    assert [each["got"] for each in answer["predictions"]] == [1, 1.5, {"x": "y"}]
    assert answer["predictions"][0]["parameters"] == {"k": 2}


def test_predict_makes_doubles_of_all_numbers_and_says_who_answered(cloud: Any):
    endpoint = cloud.serve()
    instance, parameters = (json_format.ParseDict(each, struct_pb2.Value()) for each in ({"x": 1}, {"k": 2}))
    answer = cloud.predictions.predict(endpoint=endpoint, instances=[instance], parameters=parameters, timeout=30)
    assert (answer.deployed_model_id, answer.model_version_id) == ("1", "1")
    assert answer.predictions[0]["got"]["x"] == 1.0
    assert isinstance(answer.predictions[0]["got"]["x"], float)


def test_who_answered_a_raw_prediction_stands_in_the_trailing_metadata(cloud: Any):
    endpoint = cloud.serve()
    stub = cloud.predictions.transport.raw_predict
    from google.cloud import aiplatform_v1 as v1

    body = httpbody_pb2.HttpBody(content_type="application/json", data=b'{"instances": [1]}')
    _answer, call = stub.with_call(v1.RawPredictRequest(endpoint=endpoint, http_body=body), timeout=30)
    metadata = dict(call.trailing_metadata())
    assert metadata["x-vertex-ai-deployed-model-id"] == "1"
    assert metadata["x-vertex-ai-endpoint-id"] == endpoint.rpartition("/")[2]


def test_a_stream_comes_in_the_parts_that_the_container_wrote(cloud: Any):
    endpoint = cloud.serve()
    body = httpbody_pb2.HttpBody(content_type="application/json", data=b'{"stream": ["one ", "two ", "three"]}')
    parts = list(cloud.predictions.stream_raw_predict({"endpoint": endpoint, "http_body": body}, timeout=30))
    assert b"".join(each.data for each in parts) == b"one two three"
    assert {each.content_type for each in parts} == {"text/plain"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, told.InvalidArgument),
        (404, told.NotFound),
        (422, told.FailedPrecondition),
        (429, told.ResourceExhausted),
        (500, told.InternalServerError),
        (503, told.ServiceUnavailable),
    ],
)
def test_an_error_of_the_container_becomes_a_status_with_its_text(cloud: Any, status: int, error: type[Exception]):
    endpoint = cloud.serve()
    with pytest.raises(error, match="as you asked"):
        cloud.raw(endpoint, {"status": status})


def test_a_caller_waits_no_longer_than_it_says(cloud: Any):
    endpoint = cloud.serve()
    with pytest.raises(told.DeadlineExceeded):
        cloud.raw(endpoint, {"instances": [1], "sleep": 3}, timeout=0.3)


def test_a_body_beyond_the_limit_is_refused(cloud: Any):
    shared = cloud.serve()
    body = json.dumps({"instances": ["x" * 1_600_000]}).encode()
    with pytest.raises(told.InvalidArgument, match="1572864 bytes"):
        cloud.raw(shared, body)
    dedicated = cloud.endpoint(dedicated_endpoint_enabled=True)
    cloud.deploy(dedicated, cloud.model(), "1", {"0": 100})
    mine = [("x-vertex-ai-endpoint-id", dedicated.rpartition("/")[2])]
    assert len(cloud.raw(dedicated, body, metadata=mine)) > 1_600_000
    with pytest.raises(told.InvalidArgument, match="10485760 bytes"):
        cloud.raw(dedicated, b"x" * 10_485_761, metadata=mine)


def test_a_dedicated_endpoint_is_not_reached_through_the_shared_host(cloud: Any):
    endpoint = cloud.endpoint(dedicated_endpoint_enabled=True)
    cloud.deploy(endpoint, cloud.model(), "1", {"0": 100})
    with pytest.raises(told.FailedPrecondition, match=r"prediction\.vertexai\.goog"):
        cloud.raw(endpoint)


def test_an_endpoint_that_is_not_there_is_not_found(cloud: Any, parent: str):
    with pytest.raises(told.NotFound):
        cloud.raw(f"{parent}/endpoints/nowhere")
