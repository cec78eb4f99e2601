"""This library's own model server as a container with routes, and as nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeldeploy import Model

IMAGE = "registry.example/modeldeploy-server:1"
EXAMPLE = {"x": np.array([1.0, 2.0])}


def double(frame):
    return {"y": np.asarray(frame["x"]) * 2}


@pytest.fixture(scope="module")
def call(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = Model(double, name="double", version="1.0.0", example=EXAMPLE, home=tmp_path_factory.mktemp("home"))
    archive = model.archive(tmp_path_factory.mktemp("archive") / "model.tar.gz")
    cloud.upload("double/model.tar.gz", Path(archive).read_bytes())
    uri = "azureml://datastores/workspaceblobstore/paths/double/model.tar.gz"
    cloud.put("/models/double/versions/1", {"modelUri": uri, "modelType": "custom_model"})
    route = {name: {"port": 8080, "path": "/"} for name in ("livenessRoute", "readinessRoute")}
    routes = {**route, "scoringRoute": {"port": 8080, "path": "/score"}}
    cloud.put("/environments/server/versions/1", {"image": IMAGE, "inferenceConfig": routes})
    endpoint = cloud.serve(
        "blue",
        model=f"{cloud.site}/models/double/versions/1",
        environmentId=f"{cloud.site}/environments/server/versions/1",
        codeConfiguration=None,
        environment={"MODELDEPLOY_TRUST": model.digest},
    )
    return cloud.caller(endpoint)


def test_an_endpoint_predicts(call: Any):
    answer = call({"instances": [{"x": 3.0}, {"x": 4.0}]})
    assert answer.status == 200
    assert [each["y"] if isinstance(each, dict) else each for each in answer.json()["predictions"]] == [6.0, 8.0]


def test_other_contracts_of_the_server_are_reached_by_their_paths(call: Any):
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [5.0]}]}
    answer = call(body, path="/v2/models/double/infer")
    assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [10.0])


def test_a_wrong_request_is_told_as_the_models_refusal(call: Any):
    answer = call({"instances": [{"z": 3.0}]})
    assert answer.status == 424
    assert 400 <= int(answer.headers["ms-azureml-model-error-statuscode"]) < 500
    assert b"x" in answer.data
