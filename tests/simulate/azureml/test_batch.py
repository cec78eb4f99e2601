"""Batch endpoints: jobs that run the deployment's own script, and what they leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

# A script that does what the files say.
SCRIPT = """
import os, time

def init():
    print("the script begins", flush=True)
    if os.environ.get("CRASH"):
        raise RuntimeError("the model cannot be loaded")

def run(files):
    print(f"got {len(files)} files", flush=True)
    rows = []
    for file in sorted(files):
        text = open(file).read()
        if text == "fail":
            raise ValueError("a bad file")
        if text == "once":
            open(file, "w").write("9")
            raise ValueError("not yet")
        if text == "hang":
            open(file, "w").write("8")
            time.sleep(60)
        if text == "skip":
            continue
        with open(os.path.join(os.environ["AZUREML_BI_OUTPUT_PATH"], os.path.basename(file) + ".out"), "w") as out:
            out.write(text)
        rows.append([os.path.basename(file), int(text)])
    if os.environ.get("TABLE"):
        import pandas
        return pandas.DataFrame(rows)
    return rows
"""


class Batches:
    """One batch endpoint, and what tests do with it."""

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.name = cloud.name()
        cloud.upload("b/code/batch.py", SCRIPT.encode())
        cloud.put("/codes/batch/versions/1", {"codeUri": f"{cloud.store}/b/code"})
        self.token = cloud.simulator.credential.get_token("https://ml.azure.com/.default").token
        assert cloud.settle(self.put_endpoint())["status"] == "Succeeded"

    def put_endpoint(self, default: str = "") -> Any:
        properties = {"authMode": "AADToken", "defaults": {"deploymentName": default or None}}
        return self.cloud.ask(
            "PUT", f"/batchEndpoints/{self.name}", {"location": "westeurope", "properties": properties}
        )

    def put(self, name: str, **more: Any) -> Any:
        whole = {
            "model": {"referenceType": "Id", "assetId": self.cloud.model},
            "environmentId": self.cloud.environment,
            "codeConfiguration": {"codeId": f"{self.cloud.site}/codes/batch/versions/1", "scoringScript": "batch.py"},
            "compute": f"{self.cloud.site}/computes/cpu-cluster",
            "miniBatchSize": 2,
            **more,
        }
        path = f"/batchEndpoints/{self.name}/deployments/{name}"
        return self.cloud.ask("PUT", path, {"location": "westeurope", "properties": whole})

    def deploy(self, **more: Any) -> str:
        name = self.cloud.name()
        assert self.cloud.settle(self.put(name, **more))["status"] == "Succeeded"
        return name

    def invoke(self, deployment: str, files: Mapping[str, str], **more: Any) -> Any:
        folder = f"in/{self.cloud.name()}"
        for name, text in files.items():
            self.cloud.upload(f"{folder}/{name}", text.encode())
        uri = f"azureml://datastores/workspaceblobstore/paths/{folder}"
        properties = {"inputData": {"data": {"jobInputType": "UriFolder", "uri": uri}}, **more}
        return self.post(deployment, properties)

    def post(self, deployment: str, properties: Any, **headers: str) -> Any:
        url = self.cloud.get(f"/batchEndpoints/{self.name}")["properties"]["scoringUri"]
        given = {"Authorization": f"Bearer {self.token}", "azureml-model-deployment": deployment, **headers}
        return self.cloud.ask("POST", url, {"properties": properties}, **given)

    def run(self, deployment: str, files: Mapping[str, str], **more: Any) -> tuple[str, str]:
        """Run a job to its end, and give its name and how it ended."""
        answer = self.invoke(deployment, files, **more)
        assert answer.status == 201, answer.data
        return answer.json()["name"], self.ended(answer.json()["name"])

    def ended(self, name: str) -> str:
        ends = {"Completed", "Failed", "Canceled"}
        self.cloud.wait_until(lambda: self.status(name) in ends, 30, what="the job's end")
        return self.status(name)

    def status(self, name: str) -> str:
        return self.cloud.get(f"/jobs/{name}")["properties"]["status"]

    def child(self, name: str) -> dict[str, Any]:
        return self.cloud.get(f"/history/v1.0{self.cloud.site}/runs/{name}/children")["value"][0]

    def output(self, name: str) -> dict[str, str]:
        """Give what lies in the output of a job."""
        parts = self.cloud.simulator._running.parts
        folder = f"azureml/{self.child(name)['runId']}/score/"
        blobs = parts.materials.blobs.under(parts.world.site.container, folder)
        return {each.name.removeprefix(folder): each.file.read_text() for each in blobs}

    def log(self, name: str) -> str:
        parts = self.cloud.simulator._running.parts
        folder = f"ExperimentRun/dcid.{self.child(name)['runId']}/"
        return parts.materials.blobs.under(parts.world.site.artifacts, folder)[0].file.read_text()


@pytest.fixture(scope="module")
def batches(cloud: Any) -> Batches:
    return Batches(cloud)


@pytest.fixture(scope="module")
def plain(batches: Batches) -> str:
    return batches.deploy(errorThreshold=0, retrySettings={"maxRetries": 1, "timeout": "PT1S"})


def numbers(count: int) -> dict[str, str]:
    return {f"{number}.txt": str(number) for number in range(count)}


def test_a_job_is_begun_as_recorded_sessions_have_it(batches: Batches, plain: str):
    answer = batches.invoke(plain, numbers(1))
    told = answer.json()
    assert (answer.status, told["properties"]["status"]) == (201, "Preparing")
    assert told["name"].startswith("batchjob-")
    batches.ended(told["name"])


def test_every_file_is_scored_in_mini_batches(batches: Batches, plain: str):
    name, status = batches.run(plain, numbers(5))
    rows = batches.output(name)["predictions.csv"].splitlines()
    assert status == "Completed"
    assert sorted(rows) == [f"['{number}.txt', {number}]" for number in range(5)]
    assert batches.log(name).count("got 2 files") == 2


def test_a_table_becomes_lines_with_blanks_and_no_header(batches: Batches):
    deployment = batches.deploy(environmentVariables={"TABLE": "1"})
    name, _status = batches.run(deployment, numbers(2), outputFileName="own.csv")
    assert batches.output(name)["own.csv"] == "0.txt 0\n1.txt 1\n"


def test_a_summary_leaves_the_output_to_the_script(batches: Batches):
    deployment = batches.deploy(outputAction="SummaryOnly")
    name, status = batches.run(deployment, numbers(3))
    assert (status, batches.output(name)) == ("Completed", {f"{number}.txt.out": str(number) for number in range(3)})


def test_a_mini_batch_that_fails_is_tried_again(batches: Batches, plain: str):
    name, status = batches.run(plain, {"a.txt": "once", "b.txt": "1"})
    assert status == "Completed"
    assert sorted(batches.output(name)["predictions.csv"].splitlines()) == ["['a.txt', 9]", "['b.txt', 1]"]


def test_a_mini_batch_that_hangs_gets_another_process(batches: Batches, plain: str):
    name, status = batches.run(plain, {"a.txt": "hang"})
    assert (status, batches.output(name)["predictions.csv"]) == ("Completed", "['a.txt', 8]\n")
    assert batches.log(name).count("the script begins") == 2


def test_more_failures_than_the_threshold_end_the_job(batches: Batches, plain: str):
    name, status = batches.run(plain, {**numbers(4), "a.txt": "fail"})
    assert status == "Failed"
    assert "error threshold" in batches.child(name)["error"]["error"]["message"]
    assert "predictions.csv" not in batches.output(name)
    assert "ValueError: a bad file" in batches.log(name)


def test_a_file_that_gives_no_row_has_failed(batches: Batches, plain: str):
    assert batches.run(plain, {"a.txt": "skip"})[1] == "Failed"
    assert batches.run(plain, {"a.txt": "skip"}, errorThreshold=1)[1] == "Completed"


def test_no_threshold_takes_all_failures(batches: Batches, plain: str):
    name, status = batches.run(plain, {"a.txt": "fail", "b.txt": "1", "c.txt": "2"}, errorThreshold=-1, miniBatchSize=1)
    assert status == "Completed"
    assert sorted(batches.output(name)["predictions.csv"].splitlines()) == ["['b.txt', 1]", "['c.txt', 2]"]


def test_a_script_that_cannot_begin_ends_the_job(batches: Batches):
    deployment = batches.deploy(environmentVariables={"CRASH": "1"})
    name, status = batches.run(deployment, numbers(1))
    assert status == "Failed"
    assert "RuntimeError: the model cannot be loaded" in batches.log(name)


def test_a_job_can_be_canceled(cloud: Any, batches: Batches):
    deployment = batches.deploy(retrySettings={"maxRetries": 0, "timeout": "PT100S"})
    name = batches.invoke(deployment, {"a.txt": "hang"}).json()["name"]
    cloud.wait_until(lambda: batches.status(name) == "Running", 10, what="the job")
    assert cloud.ask("POST", f"/jobs/{name}/cancel").status == 202
    assert batches.ended(name) == "Canceled"
    assert cloud.ask("POST", f"/jobs/{name}/cancel").status == 400


def test_the_output_goes_where_the_call_says(cloud: Any, batches: Batches, plain: str):
    folder = f"out/{cloud.name()}"
    uri = f"azureml://datastores/workspaceblobstore/paths/{folder}"
    batches.run(plain, numbers(1), outputData={"score": {"jobOutputType": "UriFolder", "uri": uri}})
    found = cloud.http.request("GET", f"{cloud.store}/{folder}/predictions.csv?{cloud.sas}")
    assert found.data == b"['0.txt', 0]\n"


def test_output_for_a_container_that_is_not_there_is_refused(cloud: Any, batches: Batches, plain: str):
    uri = f"{cloud.store.rpartition('/')[0]}/none/folder"
    assert (
        batches.invoke(plain, numbers(1), outputData={"score": {"jobOutputType": "UriFolder", "uri": uri}}).status
        == 400
    )


def test_the_documented_call_with_capital_letters_is_understood(batches: Batches, plain: str, cloud: Any):
    cloud.upload("in/capital/a.txt", b"1")
    uri = f"{cloud.store}/in/capital"
    answer = batches.post(plain, {"InputData": {"mnist": {"JobInputType": "UriFolder", "Uri": uri}}})
    assert batches.ended(answer.json()["name"]) == "Completed"


def test_the_default_deployment_takes_calls_that_name_none(cloud: Any, batches: Batches, plain: str):
    assert batches.invoke("", numbers(1)).status == 400
    assert batches.put_endpoint("none-such").status == 400
    cloud.settle(batches.put_endpoint(plain))
    answer = batches.invoke("", numbers(1))
    assert batches.ended(answer.json()["name"]) == "Completed"
    assert cloud.get(f"/batchEndpoints/{batches.name}")["properties"]["defaults"]["deploymentName"] == plain


def test_two_equal_calls_begin_two_jobs(batches: Batches, plain: str):
    """What the service does with repeatability-request-id is not known; a client must not count on it."""
    names = {batches.invoke(plain, numbers(1)).json()["name"] for _number in range(2)}
    for name in names:
        batches.ended(name)
    assert len(names) == 2


def test_a_call_without_a_token_of_the_workspace_is_refused(cloud: Any, batches: Batches, plain: str):
    assert batches.post(plain, {}, Authorization=f"Bearer {cloud.token}").status == 401


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"inputData": {"a": {"jobInputType": "UriFile", "uri": "nowhere"}}},
        {"inputData": {"a": {"jobInputType": "UriFolder"}}},
        {"inputData": {"a": {"jobInputType": "MLTable", "uri": "x"}}},
    ],
    ids=["none", "nowhere", "no-uri", "table"],
)
def test_a_call_without_usable_input_is_refused(batches: Batches, plain: str, properties: Any):
    assert batches.post(plain, properties).status in {400, 501}


def test_input_that_is_not_there_ends_the_job(batches: Batches, plain: str):
    name, status = batches.run(plain, {})
    assert (status, "There is nothing at" in batches.child(name)["error"]["error"]["message"]) == ("Failed", True)


@pytest.mark.parametrize(
    "more",
    [
        {"compute": None},
        {"codeConfiguration": None},
        {"environmentId": None},
        {"outputAction": "Never"},
        {"nonsense": 1},
    ],
    ids=["compute", "code", "environment", "action", "unknown"],
)
def test_a_deployment_that_cannot_be_is_refused(batches: Batches, more: dict[str, Any]):
    assert batches.put("wrong", **more).status == 400


def test_a_name_serves_one_endpoint(cloud: Any, batches: Batches):
    answer = cloud.ask(
        "PUT", f"/batchEndpoints/{cloud.endpoint()}", {"location": "westeurope", "properties": {"authMode": "AADToken"}}
    )
    assert answer.status == 400
    assert cloud.put_endpoint(batches.name).status == 400


def test_a_deployment_and_an_endpoint_can_be_deleted(cloud: Any):
    batches = Batches(cloud)
    name = batches.deploy()
    path = f"/batchEndpoints/{batches.name}"
    assert cloud.settle(cloud.ask("DELETE", f"{path}/deployments/{name}"))["status"] == "Succeeded"
    assert cloud.get(f"{path}/deployments")["value"] == []
    assert cloud.settle(cloud.ask("DELETE", path))["status"] == "Succeeded"
    assert cloud.ask("DELETE", path).status == cloud.ask("DELETE", f"{path}/deployments/{name}").status == 204
