"""The optional tier: the storage account is Azurite, with the semantics of the real thing.

Runs where ``AZURITE_PROGRAM`` names the program, ``azurite-blob`` of npm's package ``azurite``.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeldeploy.simulate.azureml import Account, Simulator

PROGRAM = os.environ.get("AZURITE_PROGRAM", "")
pytestmark = [
    pytest.mark.skipif(not PROGRAM, reason="AZURITE_PROGRAM does not name azurite-blob"),
    pytest.mark.filterwarnings("ignore:The use of a 'BlobProperties'", "ignore:content_as_bytes is deprecated"),
]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    name, key = "rehearsalazurite", base64.b64encode(secrets.token_bytes(64)).decode()
    # Without the last one a client that is newer than Azurite is refused.
    argv = [PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry", "--skipApiVersionCheck"]
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{name}:{key}"}
    with subprocess.Popen(
        argv, cwd=tmp_path_factory.mktemp("azurite"), env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield Account(f"{_address(process.stdout)}/{name}", name, key)
        finally:
            process.terminate()


def _address(output: Any) -> str:
    for line in output:
        found = re.search(rb"listens on (http://127\.0\.0\.1:\d+)", line)
        if found:
            return found[1].decode()
    pytest.fail("azurite did not say where it listens")


@pytest.fixture(scope="module")
def ml(account: Account) -> Iterator[Any]:
    with Simulator(speed=2000, storage=account) as simulator:
        yield simulator.client(retry_total=0)


@pytest.fixture
def folders(tmp_path: Path, script: str) -> tuple[Path, Path]:
    model, code = tmp_path / "model", tmp_path / "code"
    for each in (model, code):
        each.mkdir()
    (model / "weight.json").write_text("3")
    (code / "score.py").write_text(script)
    return model, code


def test_a_deployment_is_built_from_what_lies_in_azurite(ml: Any, folders: tuple[Path, Path], tmp_path: Path):
    from azure.ai.ml.entities import (
        CodeConfiguration,
        Environment,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
        Model,
    )

    model, code = folders
    ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="azurite", auth_mode="key")).result()
    blue = ManagedOnlineDeployment(
        name="blue",
        endpoint_name="azurite",
        model=Model(name="iris", version="1", path=str(model)),
        environment=Environment(
            name="e", version="1", image="mcr.microsoft.com/azureml/minimal:1", conda_file={"name": "x"}
        ),
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
        instance_type="Standard_DS3_v2",
        instance_count=1,
    )
    assert ml.online_deployments.begin_create_or_update(blue).result().provisioning_state == "Succeeded"
    ml.models.download("iris", "1", download_path=str(tmp_path / "back"))
    (found,) = (tmp_path / "back").rglob("weight.json")
    assert found.read_text() == "3"


def test_a_batch_job_reads_from_azurite_and_writes_to_it(
    ml: Any, folders: tuple[Path, Path], tmp_path: Path, wait_until: Any
):
    from azure.ai.ml import Input
    from azure.ai.ml.entities import BatchEndpoint, CodeConfiguration, Environment, Model, ModelBatchDeployment

    model, code = folders
    (code / "batch.py").write_text(
        "def init():\n    pass\ndef run(files):\n    return [open(file).read() for file in files]\n"
    )
    (tmp_path / "one.txt").write_text("one")
    ml.batch_endpoints.begin_create_or_update(BatchEndpoint(name="azurite-batch")).result()
    blue = ModelBatchDeployment(
        name="blue",
        endpoint_name="azurite-batch",
        model=Model(name="table", version="1", path=str(model)),
        environment=Environment(
            name="b", version="1", image="mcr.microsoft.com/azureml/minimal:1", conda_file={"name": "x"}
        ),
        compute="cpu-cluster",
        code_configuration=CodeConfiguration(code=str(code), scoring_script="batch.py"),
    )
    ml.batch_deployments.begin_create_or_update(blue).result()
    file = Input(path=str(tmp_path / "one.txt"), type="uri_file")
    job = ml.batch_endpoints.invoke("azurite-batch", deployment_name="blue", input=file)
    wait_until(lambda: ml.jobs.get(job.name).status == "Completed", 30, what="the job's end", interval=0.1)
    ml.jobs.download(job.name, download_path=str(tmp_path / "out"), output_name="score")
    (found,) = (tmp_path / "out").rglob("predictions.csv")
    assert found.read_text() == "one\n"
