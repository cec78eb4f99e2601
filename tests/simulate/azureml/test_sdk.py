"""The unmodified client of azure-ai-ml against the simulator: what it does for a user, from upload to deletion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# azure-ai-ml 1.35.2 asks azure-storage-blob so.
pytestmark = pytest.mark.filterwarnings("ignore:The use of a 'BlobProperties'", "ignore:content_as_bytes is deprecated")

BATCH = """
import os

def init():
    pass

def run(files):
    return [f"{os.path.basename(file)} {open(file).read()}" for file in files]
"""


@pytest.fixture(scope="module")
def ml(simulator: Any) -> Iterator[Any]:
    client = simulator.client(retry_total=0)
    yield client
    for each in vars(client).values():
        if hasattr(each, "close"):
            each.close()


@pytest.fixture
def folders(tmp_path: Path, script: str) -> tuple[Path, Path]:
    model, code = tmp_path / "model", tmp_path / "code"
    model.mkdir()
    code.mkdir()
    (model / "weight.json").write_text("3")
    (code / "score.py").write_text(script)
    (code / "batch.py").write_text(BATCH)
    return model, code


def environment(ml: Any) -> Any:
    from azure.ai.ml.entities import Environment

    image = "mcr.microsoft.com/azureml/minimal:1"
    return ml.environments.create_or_update(Environment(name="e", version="1", image=image, conda_file={"name": "x"}))


def registered(ml: Any, folder: Path, name: str = "iris-sdk") -> Any:
    from azure.ai.ml.entities import Model

    return ml.models.create_or_update(Model(name=name, version="1", path=str(folder)))


def test_the_unmodified_client_deploys_and_scores(ml: Any, folders: tuple[Path, Path], tmp_path: Path):
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment, ManagedOnlineEndpoint

    model, code = folders
    endpoint = ml.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="iris-sdk", auth_mode="key")
    ).result()
    blue = ManagedOnlineDeployment(
        name="blue",
        endpoint_name="iris-sdk",
        model=registered(ml, model),
        environment=environment(ml),
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
        instance_type="Standard_DS3_v2",
        instance_count=1,
    )
    assert ml.online_deployments.begin_create_or_update(blue).result().provisioning_state == "Succeeded"
    endpoint.traffic = {"blue": 100}
    assert ml.online_endpoints.begin_create_or_update(endpoint).result().traffic == {"blue": 100}
    asked = tmp_path / "asked.json"
    asked.write_text('{"x": [1, 2]}')
    assert json.loads(ml.online_endpoints.invoke("iris-sdk", request_file=str(asked)))["y"] == [3, 6]
    assert "model begins" in ml.online_deployments.get_logs("blue", "iris-sdk", lines=50)
    before = ml.online_endpoints.get_keys("iris-sdk").primary_key
    ml.online_endpoints.begin_regenerate_keys("iris-sdk", key_type="primary").result()
    assert ml.online_endpoints.get_keys("iris-sdk").primary_key != before
    ml.online_endpoints.begin_delete("iris-sdk").result()
    assert "iris-sdk" not in [each.name for each in ml.online_endpoints.list()]


def test_the_unmodified_client_runs_a_batch_job_and_downloads_its_output(
    ml: Any, folders: tuple[Path, Path], tmp_path: Path, wait_until: Any
):
    from azure.ai.ml import Input
    from azure.ai.ml.entities import (
        BatchEndpoint,
        CodeConfiguration,
        ModelBatchDeployment,
        ModelBatchDeploymentSettings,
    )

    model, code = folders
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.txt").write_text(str(number))
    ml.batch_endpoints.begin_create_or_update(BatchEndpoint(name="table-sdk")).result()
    blue = ModelBatchDeployment(
        name="blue",
        endpoint_name="table-sdk",
        model=registered(ml, model, "table-sdk"),
        environment=environment(ml),
        compute="cpu-cluster",
        code_configuration=CodeConfiguration(code=str(code), scoring_script="batch.py"),
        settings=ModelBatchDeploymentSettings(mini_batch_size=2, output_action="append_row"),
    )
    ml.batch_deployments.begin_create_or_update(blue).result()
    endpoint = ml.batch_endpoints.get("table-sdk")
    endpoint.defaults.deployment_name = "blue"
    ml.batch_endpoints.begin_create_or_update(endpoint).result()
    job = ml.batch_endpoints.invoke("table-sdk", input=Input(path=str(data), type="uri_folder"))
    wait_until(lambda: ml.jobs.get(job.name).status == "Completed", 20, what="the job's end", interval=0.1)
    ml.jobs.download(job.name, download_path=str(tmp_path / "out"), output_name="score")
    (found,) = (tmp_path / "out").rglob("predictions.csv")
    assert sorted(found.read_text().splitlines()) == ["0.txt 0", "1.txt 1", "2.txt 2"]
    assert [each.name for each in ml.batch_endpoints.list_jobs("table-sdk")] == [job.name]
    ml.batch_endpoints.begin_delete("table-sdk").result()


def test_the_same_bytes_are_uploaded_once(ml: Any, folders: tuple[Path, Path], simulator: Any):
    blobs = simulator._running.parts.materials.blobs
    model, _code = folders
    (model / "weight.json").write_text("17")
    first = registered(ml, model, "same")
    before = {each.name: each.etag for each in blobs.under(simulator._settings.site.container, "LocalUpload/")}
    assert registered(ml, model, "same").path == first.path
    assert {each.name: each.etag for each in blobs.under(simulator._settings.site.container, "LocalUpload/")} == before


def test_other_bytes_under_the_same_version_are_refused(ml: Any, folders: tuple[Path, Path]):
    from azure.core.exceptions import HttpResponseError

    model, _code = folders
    registered(ml, model, "other")
    (model / "weight.json").write_text("18")
    with pytest.raises(HttpResponseError) as caught:
        registered(ml, model, "other")
    assert caught.value.status_code == 400


def test_a_model_comes_back_as_it_was(ml: Any, folders: tuple[Path, Path], tmp_path: Path):
    model, _code = folders
    registered(ml, model, "back")
    ml.models.download("back", "1", download_path=str(tmp_path / "back"))
    (found,) = (tmp_path / "back").rglob("weight.json")
    assert found.read_text() == "3"
    shutil.rmtree(tmp_path / "back")


def test_a_version_is_counted_up_by_itself(ml: Any, folders: tuple[Path, Path]):
    from azure.ai.ml.entities import Model

    model, _code = folders
    versions = []
    for number in range(2):
        (model / "weight.json").write_text(str(100 + number))
        versions.append(ml.models.create_or_update(Model(name="counted", path=str(model))).version)
    assert versions == ["1", "2"]
    assert ml.models.get("counted", label="latest").version == "2"


def test_a_failed_operation_is_an_error_with_status_200(ml: Any, faults: Any):
    """What the service does, too (measured): the status of the error is that of the last answer."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint
    from azure.core.exceptions import HttpResponseError

    faults.broken["OnlineEndpoints_CreateOrUpdate"] = 1
    with pytest.raises(HttpResponseError) as caught:
        ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="broken", auth_mode="key")).result()
    assert (caught.value.status_code, caught.value.error.code) == (200, "InternalServerError")


def test_the_unmodified_client_cancels_a_job(ml: Any, folders: tuple[Path, Path], tmp_path: Path, wait_until: Any):
    from azure.ai.ml import Input
    from azure.ai.ml.entities import BatchEndpoint, CodeConfiguration, ModelBatchDeployment

    model, code = folders
    (code / "batch.py").write_text("import time\ndef init():\n    pass\ndef run(files):\n    time.sleep(60)\n")
    (tmp_path / "one.txt").write_text("1")
    ml.batch_endpoints.begin_create_or_update(BatchEndpoint(name="cancel-sdk")).result()
    blue = ModelBatchDeployment(
        name="blue",
        endpoint_name="cancel-sdk",
        model=registered(ml, model, "cancel-sdk"),
        environment=environment(ml),
        compute="cpu-cluster",
        code_configuration=CodeConfiguration(code=str(code), scoring_script="batch.py"),
    )
    ml.batch_deployments.begin_create_or_update(blue).result()
    file = Input(path=str(tmp_path / "one.txt"), type="uri_file")
    job = ml.batch_endpoints.invoke("cancel-sdk", deployment_name="blue", input=file)
    wait_until(lambda: ml.jobs.get(job.name).status == "Running", 20, what="the job", interval=0.1)
    ml.jobs.begin_cancel(job.name).wait(10)
    wait_until(lambda: ml.jobs.get(job.name).status == "Canceled", 20, what="the job's end", interval=0.1)


def test_a_version_that_is_archived_is_still_there(ml: Any, folders: tuple[Path, Path]):
    model, _code = folders
    registered(ml, model, "old")
    ml.models.archive("old", version="1")
    assert ml.models.get("old", "1").path
    assert [each.version for each in ml.models.list("old")] == []
    ml.models.restore("old", version="1")
    assert [each.version for each in ml.models.list("old")] == ["1"]
