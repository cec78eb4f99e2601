"""The unmodified client of azure-ai-ml against the simulator: what it does for a user, from upload to deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    model, code = tmp_path / "model", tmp_path / "code"
    model.mkdir()
    code.mkdir()
    (model / "weight.json").write_text("3")
    return model, code


def test_the_unmodified_client_deploys_and_scores(cloud: Any, folders: tuple[Path, Path], tmp_path: Path, script: str):
    from azure.ai.ml.entities import (
        CodeConfiguration,
        Environment,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
        Model,
    )

    model, code = folders
    (code / "score.py").write_text(script)
    registered = cloud.ml.models.create_or_update(Model(name="iris", version="1", path=str(model)))
    image = Environment(
        name="plain", version="1", image="mcr.microsoft.com/azureml/minimal:1", conda_file={"name": "x"}
    )
    environment = cloud.ml.environments.create_or_update(image)
    endpoint = cloud.ml.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="iris", auth_mode="key")
    ).result()
    blue = ManagedOnlineDeployment(
        name="blue",
        endpoint_name="iris",
        model=registered,
        environment=environment,
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
        instance_type="Standard_DS3_v2",
        instance_count=1,
    )
    assert cloud.ml.online_deployments.begin_create_or_update(blue).result().provisioning_state == "Succeeded"
    endpoint.traffic = {"blue": 100}
    assert cloud.ml.online_endpoints.begin_create_or_update(endpoint).result().traffic == {"blue": 100}
    asked = tmp_path / "asked.json"
    asked.write_text('{"x": [1, 2]}')
    assert json.loads(cloud.ml.online_endpoints.invoke("iris", request_file=str(asked)))["y"] == [3, 6]
    assert "model is loaded" in cloud.ml.online_deployments.get_logs("blue", "iris", lines=50)
    cloud.ml.online_endpoints.begin_delete("iris").result()
    assert list(cloud.ml.online_endpoints.list()) == []
