"""One simulator for each module, and small models to serve in it."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modeldeploy.simulate.sagemaker import Simulator

# A container that does what its environment says: the smallest thing that honours the contract.
SERVER = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
if os.environ.get("CRASH"):
    sys.exit("the model cannot be loaded")
time.sleep(float(os.environ.get("LATE", "0")))
NAME = os.environ.get("NAME", "model")
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    def log_message(self, *args): pass
    def answer(self, status, body, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(500 if os.environ.get("UNWELL") else 200, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(f"{NAME} got {len(body)} bytes", flush=True)
        if body == b"slow":
            time.sleep(30)
        if body.startswith(b"fail"):
            return self.answer(int(body.split()[1]), b"the model says no")
        if body == b"break":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            self.wfile.flush()
            self.close_connection = True
            return self.connection.shutdown(2)
        if body == b"die":
            os._exit(1)
        if body == b"environment":
            return self.answer(200, json.dumps(dict(os.environ)).encode())
        if body == b"files":
            return self.answer(200, json.dumps(os.listdir(os.environ["SAGEMAKER_BASE_DIR"] + "/model")).encode())
        if body == b"headers":
            return self.answer(200, json.dumps(dict(self.headers.items())).encode(), Content_Type="application/json")
        lines = body.decode().splitlines()
        out = "".join(f"{NAME}:{line}\\n" for line in lines)
        self.answer(200, out.encode(), Content_Type="text/csv", X_Amzn_SageMaker_Custom_Attributes=NAME, X_Secret="no")
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.serve_forever()
"""
ECHO = "111122223333.dkr.ecr.us-east-1.amazonaws.com/echo:1"
ENDED = frozenset({"InService", "Failed", "UpdateRollbackFailed"})


class Cloud:
    """A simulator with what tests do in it again and again."""

    def __init__(self, simulator: Simulator, wait_until: Callable[..., Any]) -> None:
        self.simulator = simulator
        self.wait_until = wait_until
        self.sm = simulator.client("sagemaker")
        self.runtime = simulator.client("sagemaker-runtime")
        self.s3 = simulator.client("s3")
        self.put("model.tar.gz", archive({"weights": b"1"}))

    def put(self, key: str, data: bytes) -> str:
        self.s3.put_object(Bucket=self.simulator.bucket, Key=key, Body=data)
        return f"s3://{self.simulator.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def find(self, uri: str) -> bytes | None:
        try:
            return self.get(uri)
        except self.s3.exceptions.NoSuchKey:
            return None

    def model(self, model: str, *, url: str = "", name: str = "", **environment: str) -> str:
        container = {
            "Image": ECHO,
            "ModelDataUrl": url or f"s3://{self.simulator.bucket}/model.tar.gz",
            "Environment": {"NAME": name or model, **environment},
        }
        self.sm.create_model(ModelName=model, PrimaryContainer=container, ExecutionRoleArn=self.simulator.role)
        return model

    def config(self, name: str, *models: str, more: dict[str, Any] | None = None, **named: str) -> str:
        """Make a configuration of models that give their names to their variants, or that are named."""
        variants = [variant(each, model) for each, model in ({each: each for each in models} | named).items()]
        self.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **(more or {}))
        return name

    def endpoint(self, name: str, config: str, **more: Any) -> dict[str, Any]:
        self.sm.create_endpoint(EndpointName=name, EndpointConfigName=config, **more)
        return self.settled(name)

    def serve(self, name: str, **environment: str) -> str:
        """Make model, configuration and endpoint of one name, and wait until it serves."""
        self.model(name, **environment)
        self.config(name, name)
        assert self.endpoint(name, name)["EndpointStatus"] == "InService"
        return name

    def weigh(self, name: str, **weights: float) -> None:
        self.sm.update_endpoint_weights_and_capacities(
            EndpointName=name,
            DesiredWeightsAndCapacities=[
                {"VariantName": variant, "DesiredWeight": weight} for variant, weight in weights.items()
            ],
        )

    def lines(self, group: str) -> str:
        logs = self.simulator.client("logs")
        try:
            events = logs.filter_log_events(logGroupName=group)["events"]
        except logs.exceptions.ResourceNotFoundException:  # nothing was said yet
            return ""
        return "\n".join(each["message"] for each in events)

    def status(self, name: str) -> str:
        return self.sm.describe_endpoint(EndpointName=name)["EndpointStatus"]

    def settled(self, name: str) -> dict[str, Any]:
        self.wait_until(lambda: self.status(name) in ENDED, 30, what=f"{name} at rest")
        return self.sm.describe_endpoint(EndpointName=name)

    def gone(self, name: str) -> None:
        self.sm.delete_endpoint(EndpointName=name)
        self.wait_until(lambda: name not in self.endpoints(), 30, what=f"{name} gone")

    def endpoints(self) -> list[str]:
        return [each["EndpointName"] for each in self.sm.list_endpoints(MaxResults=100)["Endpoints"]]

    def ask(self, name: str, body: bytes = b"x", **more: Any) -> str:
        return self.runtime.invoke_endpoint(EndpointName=name, Body=body, **more)["Body"].read().decode()


def variant(name: str, model: str, **more: Any) -> dict[str, Any]:
    return {"VariantName": name, "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, **more}


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    script = tmp_path_factory.mktemp("echo") / "echo.py"
    script.write_text(SERVER, encoding="utf-8")
    images = {"echo": (sys.executable, "-S", str(script), "{port}")}
    with Simulator(
        speed=1000, images=images, health_check_s=30.0, invocation_timeout_s=3.0, max_body_mb=1
    ) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def cloud(simulator: Simulator, wait_until: Callable[..., Any]) -> Cloud:
    return Cloud(simulator, wait_until)
