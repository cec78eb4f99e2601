"""This library's own model server as the container of an endpoint and of a transform job."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modeldeploy import Model

IMAGE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/modeldeploy:1"
EXAMPLE = {"x": np.array([1.0, 2.0])}


def double(frame):
    return {"y": np.asarray(frame["x"]) * 2}


@pytest.fixture(scope="module")
def model(cloud, tmp_path_factory):
    made = Model(double, name="double", version="1.0.0", example=EXAMPLE, home=tmp_path_factory.mktemp("home"))
    data = made.archive(tmp_path_factory.mktemp("archive") / "model.tar.gz").read_bytes()
    container = {
        "Image": IMAGE,
        "ModelDataUrl": cloud.put("double.tar.gz", data),
        "Environment": {"MODELDEPLOY_TRUST": made.digest},
    }
    cloud.sm.create_model(ModelName="double", PrimaryContainer=container, ExecutionRoleArn=cloud.simulator.role)
    return "double"


def test_an_endpoint_predicts(cloud, model):
    cloud.config("double", model)
    assert cloud.endpoint("double", "double")["EndpointStatus"] == "InService"
    body = json.dumps({"instances": [{"x": 3.0}, {"x": 4.0}]}).encode()
    answer = json.loads(cloud.ask("double", body, ContentType="application/json"))
    assert [each["y"] if isinstance(each, dict) else each for each in answer["predictions"]] == [6.0, 8.0]


def test_a_wrong_request_is_the_callers_fault(cloud, model):
    if "double" not in cloud.endpoints():
        cloud.config("double", model)
        cloud.endpoint("double", "double")
    with pytest.raises(cloud.runtime.exceptions.ModelError) as caught:
        cloud.ask("double", b'{"instances": [{"z": 3.0}]}', ContentType="application/json")
    assert 400 <= caught.value.response["OriginalStatusCode"] < 500
    assert "x" in caught.value.response["OriginalMessage"]
