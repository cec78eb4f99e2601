"""This library's own model server behind the container contract, its bundle fetched from the simulated Cloud Storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.simulate.vertex.containers import server

EXAMPLE = [[1.0, 2.0], [3.0, 4.0]]
PUBLIC = "docker.io/library/python:3.12-slim"
SCRIPT = (
    "pip install 'modeldeploy[sklearn]==0.1.0' && "
    "exec python -m modeldeploy.serving serve --host 0.0.0.0 --port $AIP_HTTP_PORT --auth none --revision blue"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.array(EXAMPLE), [1.0, 2.0])
    store = Store(tmp_path_factory.mktemp("store"))
    return package(model, name="line", version="1.0.0", example=np.array(EXAMPLE), store=store)


@pytest.fixture(scope="module")
def files(cloud: Any, bundle: Bundle) -> str:
    for each in bundle.path.rglob("*"):
        if each.is_file():
            cloud.put(f"bundles/line/{each.relative_to(bundle.path).as_posix()}", each.read_bytes())
    return "gs://data/bundles/line"


@pytest.fixture(scope="module")
def archive(cloud: Any, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = bundle.archive(tmp_path_factory.mktemp("archive") / "model.tar.gz")
    return cloud.put("archives/line/model.tar.gz", Path(path).read_bytes()).rpartition("/")[0]


@pytest.mark.parametrize(
    "how",
    [
        {"image_uri": "europe-docker.pkg.dev/p/r/modeldeploy:1"},
        {"image_uri": PUBLIC, "command": ["sh", "-c", SCRIPT]},
        {"image_uri": PUBLIC, "command": ["python", "-m", "modeldeploy.serving"], "args": ["--auth", "none"]},
    ],
    ids=["own-image", "shell", "command"],
)
def test_the_model_server_serves_a_bundle_from_cloud_storage(cloud, files, archive, how):
    uri = files if how.get("command") else archive
    container = {**how, "health_route": "/ping", "predict_route": "/invocations"}
    found = cloud.upload(cloud.name(), artifact_uri=uri, container_spec=container)
    endpoint = cloud.endpoint()
    cloud.deploy(endpoint, found.model, "1", {"0": 100})
    answer = json.loads(cloud.raw(endpoint, {"instances": EXAMPLE}))
    assert answer["predictions"] == pytest.approx([1.0, 2.0])


def test_the_model_server_scores_a_table_in_a_batch_prediction_job(cloud: Any, files: str):
    container = {"image_uri": "modeldeploy:1", "health_route": "/ping", "predict_route": "/invocations"}
    found = cloud.upload(cloud.name(), artifact_uri=files, container_spec=container)
    rows = cloud.put("rows.jsonl", b"".join(json.dumps(each).encode() + b"\n" for each in EXAMPLE))
    job = cloud.finished(cloud.job(found.model, [rows]))
    assert job.state.name == "JOB_STATE_SUCCEEDED", job
    lines = [json.loads(each) for name, found in cloud.output(job).items() if "results" in name for each in found]
    assert [each["prediction"] for each in lines] == pytest.approx([1.0, 2.0])


def test_a_model_without_files_does_not_come_up_and_the_log_says_why(cloud: Any):
    container = {"image_uri": "modeldeploy:1", "health_route": "/ping", "predict_route": "/invocations"}
    found = cloud.upload(cloud.name(), container_spec=container)
    endpoint = cloud.endpoint()
    assert "exited unexpectedly" in cloud.settle(cloud.begin_deploy(endpoint, found.model, "1")).error.message
    lines = cloud.simulator._running.logbook.lines()
    own = [each.text for each in lines if each.endpoint == endpoint.rpartition("/")[2]]
    assert any("no bundle in" in each for each in own)


@pytest.mark.parametrize(
    ("command", "args", "wanted"),
    [
        ([], [], []),
        ([], ["serve", "--port", "8080", "--trust", "sha256:x"], ["serve", "--trust", "sha256:x"]),
        (["python", "-m", "modeldeploy.serving"], ["--host=0.0.0.0", "--name", "$(WHO)"], ["--name", "me"]),
        (["sh", "-c", "pip install x; python -m modeldeploy.serving --name $WHO && echo end"], [], ["--name", "me"]),
        (["bash", "-c", "exec python -m modeldeploy.serving --host 0.0.0.0 --auth none"], [], ["--auth", "none"]),
    ],
    ids=["nothing", "arguments", "variables", "script", "exec"],
)
def test_the_model_server_gets_its_own_arguments_but_listens_on_loopback(command, args, wanted):
    class Container:
        """What a container says it starts."""

    container = Container()
    container.command, container.args = command, args
    argv = list(server(container, {"WHO": "me"}).argv)
    own = argv[argv.index("modeldeploy.serving") + 1 :]
    assert own == [*wanted, "--host", "127.0.0.1", "--port", "0", "--announce"]
