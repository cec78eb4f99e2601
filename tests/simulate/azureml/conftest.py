"""One simulator for each module, the SDK's own client, and a small model to serve in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from modeldeploy.simulate.azureml import Simulator

# An entry script that does what its environment and its callers say.
SCRIPT = """
import json, os, sys, time

def init():
    global weight, name
    name = os.environ.get("NAME", "model")
    if os.environ.get("CRASH"):
        sys.exit("the model cannot be loaded")
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weight.json")) as file:
        weight = json.load(file)
    print(f"{name} is loaded", flush=True)

def run(data, request_headers):
    print(f"{name} got {data}", flush=True)
    asked = json.loads(data)
    time.sleep(asked.get("sleep", 0))
    if "raise" in asked:
        raise ValueError(asked["raise"])
    return {"by": name, "y": [weight * each for each in asked.get("x", [])]}
"""
JSON = "application/json"
NAMESPACE = "Microsoft.MachineLearningServices"


class Cloud:
    """A simulator with what tests do in it again and again."""

    def __init__(self, simulator: Simulator, directory: Path, wait_until: Callable[..., Any]) -> None:
        self.simulator = simulator
        self.directory = directory
        self.wait_until = wait_until
        self.ml = simulator.client(retry_total=0)
        self.http = urllib3.PoolManager(num_pools=2, maxsize=32)
        self.token = simulator.credential.get_token().token

    def close(self) -> None:
        self.http.clear()
        self.ml.close() if hasattr(self.ml, "close") else None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request to Resource Manager below the workspace, or to a URL."""
        site = f"/subscriptions/{self.simulator.subscription_id}/resourceGroups/{self.simulator.resource_group}"
        url = (
            path
            if "://" in path
            else f"{self.simulator.url}{site}/providers/{NAMESPACE}/workspaces/{self.simulator.workspace}{path}"
        )
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": JSON, **headers}
        data = None if body is None else json.dumps(body).encode()
        return self.http.request(method, url, body=data, headers=given, retries=False, timeout=30)

    def get(self, path: str) -> Any:
        """Read something of the workspace."""
        found = self.ask("GET", path)
        assert found.status == 200, found.data
        return found.json()

    def settle(self, answer: Any) -> dict[str, Any]:
        """Wait for an operation that an answer began, and give how it ended."""
        assert answer.status in {201, 202}, answer.data
        url = answer.headers["Azure-AsyncOperation"]
        self.wait_until(lambda: self._ended(url), 30, what="the operation's end")
        return self.ask("GET", url).json()

    def _ended(self, url: str) -> bool:
        return self.ask("GET", url).json()["status"] in {"Succeeded", "Failed", "Canceled"}

    def endpoint(self, name: str, **properties: Any) -> str:
        body = {"location": "westeurope", "properties": {"authMode": "Key", **properties}}
        assert self.settle(self.ask("PUT", f"/onlineEndpoints/{name}", body))["status"] == "Succeeded"
        return name

    def key(self, name: str) -> str:
        return self.ask("POST", f"/onlineEndpoints/{name}/listKeys").json()["primaryKey"]

    def score(self, name: str, asked: Any = None, **headers: str) -> Any:
        url = self.get(f"/onlineEndpoints/{name}")["properties"]["scoringUri"]
        given = {"Authorization": f"Bearer {self.key(name)}", "Content-Type": JSON, **headers}
        return self.http.request(
            "POST", url, body=json.dumps(asked or {"x": [1]}).encode(), headers=given, retries=False, timeout=30
        )


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(speed=1000, patience_s=10) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def cloud(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., Any]
) -> Iterator[Cloud]:
    cloud = Cloud(simulator, tmp_path_factory.mktemp("cloud"), wait_until)
    yield cloud
    cloud.close()


@pytest.fixture(scope="session")
def script() -> str:
    return SCRIPT
