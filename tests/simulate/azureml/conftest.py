"""One simulator for each module, plain HTTP and the SDK's own client, and a small model to serve in it."""

from __future__ import annotations

import json
import sys
import time
import uuid
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
    print(f"{name} begins", flush=True)
    if os.environ.get("CRASH"):
        raise RuntimeError("the model cannot be loaded")
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weight.json")) as file:
        weight = json.load(file)

def run(data, request_headers):
    print(f"{name} got {data}", flush=True)
    asked = json.loads(data)
    if "exit" in asked:
        os._exit(1)
    time.sleep(asked.get("sleep", 0))
    if "raise" in asked:
        raise ValueError(asked["raise"])
    return {"by": name, "y": [weight * each for each in asked.get("x", [])], "seen": dict(request_headers)}
"""
# A container with routes of its own: the smallest thing that honours them.
SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    def log_message(self, *args): pass
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer({"/live": 200, "/ready": int(os.environ.get("READY", "200"))}.get(self.path, 404), b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, f"{self.path} {sorted(os.listdir(os.environ['AZUREML_MODEL_DIR']))}".encode())
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
JSON = "application/json"
NAMESPACE = "Microsoft.MachineLearningServices"
ENDED = {"Succeeded", "Failed", "Canceled"}


class Cloud:
    """A simulator with what tests do in it again and again, over plain HTTP."""

    def __init__(self, simulator: Simulator, directory: Path, wait_until: Callable[..., Any]) -> None:
        self.simulator = simulator
        self.directory = directory
        self.wait_until = wait_until
        self.http = urllib3.PoolManager(num_pools=2, maxsize=32)
        self.token = simulator.credential.get_token().token
        self.group = f"/subscriptions/{simulator.subscription_id}/resourceGroups/{simulator.resource_group}"
        self.site = f"{self.group}/providers/{NAMESPACE}/workspaces/{simulator.workspace}"
        self.model = f"{self.site}/models/iris/versions/1"
        self.code = f"{self.site}/codes/score/versions/1"
        self.environment = f"{self.site}/environments/plain/versions/1"
        self._furnish()

    def _furnish(self) -> None:
        """Upload a model and a script, and register them with an environment."""
        secrets = self.ask("POST", "/datastores/workspaceblobstore/listSecrets").json()["sasToken"]
        store = self.get("/datastores/workspaceblobstore")["properties"]
        self.store = f"{self.simulator.url}/{store['accountName']}/{store['containerName']}"
        self.sas = secrets
        self.upload("m/model/weight.json", b"3")
        self.upload("c/code/score.py", SCRIPT.encode())
        paths = f"azureml:/{self.site}/datastores/workspaceblobstore/paths"
        self.put("/models/iris/versions/1", {"modelUri": f"{paths}/m/model", "modelType": "custom_model"})
        self.put("/codes/score/versions/1", {"codeUri": f"{self.store}/c/code"})
        self.put("/environments/plain/versions/1", {"image": "mcr.microsoft.com/azureml/minimal:1", "condaFile": "{}"})

    def upload(self, name: str, data: bytes) -> None:
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2026-10-06"}
        answer = self.http.request("PUT", f"{self.store}/{name}?{self.sas}", body=data, headers=headers)
        assert answer.status == 201, answer.data

    def put(self, path: str, properties: dict[str, Any]) -> dict[str, Any]:
        answer = self.ask("PUT", path, {"properties": properties})
        assert answer.status in {200, 201}, answer.data
        return answer.json()

    def close(self) -> None:
        self.http.clear()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request to Resource Manager: to a path below the workspace, to another, or to a URL."""
        url = path if "://" in path else f"{self.simulator.url}{self.site}{path}"
        if path.startswith(("/subscriptions", "/history", "/mferp", "/discovery")):
            url = f"{self.simulator.url}{path}"
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": JSON, **headers}
        data = None if body is None else json.dumps(body).encode()
        return self.http.request(method, url, body=data, headers=given, retries=False, timeout=30)

    def get(self, path: str) -> Any:
        found = self.ask("GET", path)
        assert found.status == 200, found.data
        return found.json()

    def settle(self, answer: Any) -> dict[str, Any]:
        """Wait for the operation that an answer began, and give how it ended."""
        assert answer.status in {201, 202}, answer.data
        url = answer.headers["Azure-AsyncOperation"]
        self.wait_until(lambda: self.ask("GET", url).json()["status"] in ENDED, 30, what="the operation's end")
        return self.ask("GET", url).json()

    def name(self) -> str:
        """Give a name that nothing has yet."""
        return f"e{uuid.uuid4().hex[:12]}"

    def put_endpoint(self, name: str, **properties: Any) -> Any:
        return self.ask(
            "PUT",
            f"/onlineEndpoints/{name}",
            {"location": "westeurope", "properties": {"authMode": "Key", **properties}},
        )

    def endpoint(self, name: str = "", **properties: Any) -> str:
        name = name or self.name()
        assert self.settle(self.put_endpoint(name, **properties))["status"] == "Succeeded"
        return name

    def deployment(
        self, *, count: int = 1, environment: dict[str, str] | None = None, **properties: Any
    ) -> dict[str, Any]:
        """Give the body of a deployment that scores with the script."""
        whole = {
            "endpointComputeType": "Managed",
            "model": self.model,
            "environmentId": self.environment,
            "codeConfiguration": {"codeId": self.code, "scoringScript": "score.py"},
            "environmentVariables": environment or {},
            "instanceType": "Standard_DS3_v2",
            **properties,
        }
        return {"location": "westeurope", "properties": whole, "sku": {"name": "Default", "capacity": count}}

    def put_deployment(self, endpoint: str, name: str, **more: Any) -> Any:
        more.setdefault("environment", {"NAME": name})
        return self.ask("PUT", f"/onlineEndpoints/{endpoint}/deployments/{name}", self.deployment(**more))

    def deploy(self, endpoint: str, name: str, **more: Any) -> dict[str, Any]:
        return self.settle(self.put_deployment(endpoint, name, **more))

    def serve(self, *names: str, mirror: dict[str, int] | None = None, **more: Any) -> str:
        """Make an endpoint with deployments, the first of which has all traffic."""
        endpoint = self.endpoint()
        for each in names:
            assert self.deploy(endpoint, each, **more)["status"] == "Succeeded"
        return self.endpoint(endpoint, traffic={names[0]: 100}, mirrorTraffic=mirror or {})

    def key(self, name: str) -> str:
        return self.ask("POST", f"/onlineEndpoints/{name}/listKeys").json()["primaryKey"]

    def caller(self, name: str) -> Callable[..., Any]:
        """Give what calls an endpoint with its key."""
        url, key = self.get(f"/onlineEndpoints/{name}")["properties"]["scoringUri"], self.key(name)

        def call(asked: Any = None, *, path: str = "", **headers: str) -> Any:
            given = {"Authorization": f"Bearer {key}", "Content-Type": JSON, **headers}
            body = json.dumps({"x": [1]} if asked is None else asked).encode()
            target = url.replace("/score", path) if path else url
            return self.http.request("POST", target, body=body, headers=given, retries=False, timeout=30)

        return call

    def logs(self, endpoint: str, deployment: str, **more: Any) -> str:
        found = self.ask("POST", f"/onlineEndpoints/{endpoint}/deployments/{deployment}/getLogs", more)
        return found.json()["content"]

    def state(self, endpoint: str, deployment: str) -> str:
        return self.get(f"/onlineEndpoints/{endpoint}/deployments/{deployment}")["properties"]["provisioningState"]


def error_of(answer: Any) -> dict[str, Any]:
    return answer.json()["error"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    script = tmp_path_factory.mktemp("server") / "server.py"
    script.write_text(SERVER, encoding="utf-8")
    return (sys.executable, "-S", str(script), "{port}")


@pytest.fixture(scope="module")
def simulator(server: tuple[str, ...]) -> Iterator[Simulator]:
    with Simulator(speed=2000, patience_s=10, images={"routes": server}) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def cloud(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., Any]
) -> Iterator[Cloud]:
    cloud = Cloud(simulator, tmp_path_factory.mktemp("cloud"), wait_until)
    yield cloud
    cloud.close()


@pytest.fixture
def faults(simulator: Simulator) -> Iterator[Any]:
    """The switches, all of them off again afterwards."""
    faults = simulator.faults
    before = {name: getattr(faults, name) for name in _switches(faults)}
    before = {name: dict(value) if isinstance(value, dict) else value for name, value in before.items()}
    yield faults
    for name, value in before.items():
        setattr(faults, name, value)


def _switches(faults: Any) -> list[str]:
    return [each.name for each in type(faults).__attrs_attrs__ if not each.name.startswith("_")]


@pytest.fixture(scope="session")
def script() -> str:
    return SCRIPT


@pytest.fixture
def count_until() -> Callable[[Callable[[], int], int], None]:
    """Wait until a count has come to a number, and fail when it goes beyond."""

    def wait(count: Callable[[], int], wanted: int) -> None:
        until = time.monotonic() + 10
        while count() < wanted and time.monotonic() < until:
            time.sleep(0.01)
        assert count() == wanted

    return wait
