"""One simulator for each module, the unmodified clients of the installed package, and a small container to run in it."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api import httpbody_pb2
from google.cloud import aiplatform_v1 as v1

from modeldeploy.simulate.vertex import Simulator

# A container that honours the contract, and does what its environment and its callers say.
SERVER = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
NAME = os.environ.get("NAME", "model")
print(f"{NAME} begins", flush=True)
if os.environ.get("CRASH"):
    sys.exit(3)
HEALTH, PREDICT = os.environ["AIP_HEALTH_ROUTE"], os.environ["AIP_PREDICT_ROUTE"]
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    def log_message(self, *args): pass
    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        well = os.path.exists(os.environ.get("HEALTH_FILE", "/"))
        self.answer((int(os.environ.get("HEALTH", "200")) if well else 503) if self.path == HEALTH else 404, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != PREDICT:
            return self.answer(404, b"no such route")
        if self.headers["Content-Type"] != "application/json":
            return self.answer(200, self.headers["Content-Type"].encode() + b" " + body, "text/plain")
        asked = json.loads(body)
        if asked.get("stream"):
            return self.stream(asked["stream"])
        if asked.get("exit"):
            os._exit(1)
        time.sleep(asked.get("sleep", 0) or (asked.get("parameters") or {}).get("sleep", 0))
        if asked.get("status"):
            return self.answer(asked["status"], b"as you asked")
        if asked.get("environment"):
            return self.answer(200, json.dumps(dict(os.environ)).encode())
        if "exit" in asked["instances"]:
            os._exit(1)
        if asked["instances"] in (["none"], ["short"]):
            return self.answer(200, b"[]" if asked["instances"] == ["none"] else b'{"predictions": []}')
        if any(each in ("bad", ["bad"], {"x": "bad"}) for each in asked["instances"]):
            print(f"{NAME} fails", flush=True)
            return self.answer(422, b"bad instance")
        told = [{"by": NAME, "got": each, "parameters": asked.get("parameters")} for each in asked["instances"]]
        self.answer(200, json.dumps({"predictions": told}).encode())
    def stream(self, parts):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for each in [*parts, ""]:
            self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(each), each.encode()))
            self.wfile.flush()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["AIP_HTTP_PORT"])), Handler).serve_forever()
"""
PARENT = "projects/rehearsal/locations/europe-west4"
IMAGE = "example.com/mine:1"
TIMEOUT_S = 60
SPEED = 2000


class Cloud:
    """A simulator with what tests do in it again and again, through the package's own clients."""

    def __init__(self, simulator: Simulator, wait_until: Callable[..., Any]) -> None:
        self.simulator = simulator
        self.wait_until = wait_until
        self._transports = {
            name: simulator.transport(f"{name}Service") for name in ("Model", "Endpoint", "Prediction", "Job")
        }
        self.models = v1.ModelServiceClient(transport=self._transports["Model"])
        self.endpoints = v1.EndpointServiceClient(transport=self._transports["Endpoint"])
        self.predictions = v1.PredictionServiceClient(transport=self._transports["Prediction"])
        self.jobs = v1.JobServiceClient(transport=self._transports["Job"])
        self.storage = simulator.storage_client()

    def close(self) -> None:
        for each in self._transports.values():
            each.close()
        self.storage.close()

    # Long-running operations.

    def operation(self, started: Any) -> Any:
        """Give an operation as it is now."""
        name = started if isinstance(started, str) else started.operation.name
        return self.endpoints.get_operation({"name": name}, timeout=TIMEOUT_S)

    def settle(self, started: Any) -> Any:
        """Wait until an operation has ended, and give it."""
        self.wait_until(lambda: self.operation(started).done, TIMEOUT_S, what="the operation's end")
        return self.operation(started)

    def done(self, started: Any, kind: Any) -> Any:
        """Wait until an operation has ended well, and give its response."""
        ended = self.settle(started)
        assert not ended.error.code, ended.error
        return kind.deserialize(ended.response.value)

    # Things.

    def name(self) -> str:
        """Give an id that nothing has yet."""
        return f"t{uuid.uuid4().hex[:12]}"

    def container(self, *, image: str = IMAGE, **env: str) -> dict[str, Any]:
        variables = [{"name": key, "value": value} for key, value in env.items()]
        return {"image_uri": image, "health_route": "/health", "predict_route": "/go", "env": variables}

    def upload(self, model_id: str = "", *, parent_model: str = "", **more: Any) -> Any:
        """Upload a model, or a version of one, and give what was uploaded."""
        model = {"display_name": more.pop("display_name", "plain"), "container_spec": self.container(), **more}
        request = {"parent": PARENT, "model": model, "model_id": model_id, "parent_model": parent_model}
        return self.done(self.models.upload_model(request, timeout=TIMEOUT_S), v1.UploadModelResponse)

    def model(self, **env: str) -> str:
        """Upload a model whose container has these variables, and give its name with its version."""
        found = self.upload(self.name(), container_spec=self.container(**env))
        return f"{found.model}@{found.model_version_id}"

    def endpoint(self, endpoint_id: str = "", **more: Any) -> str:
        endpoint = {"display_name": "here", **more}
        request = {"parent": PARENT, "endpoint": endpoint, "endpoint_id": endpoint_id or self.name()}
        return self.done(self.endpoints.create_endpoint(request, timeout=TIMEOUT_S), v1.Endpoint).name

    def deployed(self, model: str, deployed_id: str = "", **more: Any) -> dict[str, Any]:
        resources = {"machine_spec": {"machine_type": "n1-standard-2"}, "min_replica_count": 1}
        return {
            "model": model,
            "id": deployed_id,
            "dedicated_resources": {**resources, **more.pop("resources", {})},
            **more,
        }

    def begin_deploy(self, endpoint: str, model: str, deployed_id: str = "", split: Any = None, **more: Any) -> Any:
        request = {
            "endpoint": endpoint,
            "deployed_model": self.deployed(model, deployed_id, **more),
            "traffic_split": split or {},
        }
        return self.endpoints.deploy_model(request, timeout=TIMEOUT_S)

    def deploy(self, endpoint: str, model: str, deployed_id: str = "", split: Any = None, **more: Any) -> Any:
        started = self.begin_deploy(endpoint, model, deployed_id, split, **more)
        return self.done(started, v1.DeployModelResponse).deployed_model

    def serve(self, **env: str) -> str:
        """Make an endpoint all of whose traffic goes to the deployed model 1."""
        endpoint = self.endpoint()
        self.deploy(endpoint, self.model(**env), "1", {"0": 100})
        return endpoint

    def get(self, endpoint: str) -> Any:
        return self.endpoints.get_endpoint({"name": endpoint}, timeout=TIMEOUT_S)

    def split(self, endpoint: str, split: dict[str, int], *, etag: str = "") -> Any:
        request = {"endpoint": {"name": endpoint, "traffic_split": split, "etag": etag}}
        return self.endpoints.update_endpoint(
            {**request, "update_mask": {"paths": ["traffic_split"]}}, timeout=TIMEOUT_S
        )

    def raw(
        self,
        endpoint: str,
        body: Any = None,
        *,
        kind: str = "application/json",
        timeout: float = TIMEOUT_S,
        **more: Any,
    ) -> Any:
        """Ask an endpoint, and give the body of its answer."""
        data = body if isinstance(body, bytes) else json.dumps({"instances": [1]} if body is None else body).encode()
        http_body = httpbody_pb2.HttpBody(content_type=kind, data=data)
        return self.predictions.raw_predict(
            {"endpoint": endpoint, "http_body": http_body}, timeout=timeout, **more
        ).data

    def by(self, endpoint: str) -> str:
        """Ask an endpoint, and say who answered."""
        return json.loads(self.raw(endpoint))["predictions"][0]["by"]

    # Batch prediction jobs.

    def put(self, name: str, data: bytes, bucket: str = "data") -> str:
        """Upload an object, and give its URI."""
        if self.storage.lookup_bucket(bucket) is None:
            self.storage.create_bucket(bucket)
        self.storage.bucket(bucket).blob(name).upload_from_string(data)
        return f"gs://{bucket}/{name}"

    def job(self, model: str, uris: list[str], *, form: str = "jsonl", size: int = 4, **more: Any) -> Any:
        """Begin a job."""
        job = {
            "display_name": "job",
            "model": model,
            "input_config": {"instances_format": form, "gcs_source": {"uris": uris}},
            "output_config": {
                "predictions_format": "jsonl",
                "gcs_destination": {"output_uri_prefix": f"gs://data/{self.name()}"},
            },
            "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-2"}, "starting_replica_count": 1},
            "manual_batch_tuning_parameters": {"batch_size": size},
            **more,
        }
        return self.jobs.create_batch_prediction_job({"parent": PARENT, "batch_prediction_job": job}, timeout=TIMEOUT_S)

    def job_state(self, job: Any) -> Any:
        return self.jobs.get_batch_prediction_job({"name": job.name}, timeout=TIMEOUT_S)

    def finished(self, job: Any) -> Any:
        """Wait until a job is over, and give it."""
        self.wait_until(lambda: self.job_state(job).end_time, TIMEOUT_S, what="the job's end")
        return self.job_state(job)

    def output(self, job: Any) -> dict[str, list[str]]:
        """Read the files of a job's output, by their names."""
        bucket, _, folder = job.output_info.gcs_output_directory.removeprefix("gs://").partition("/")
        blobs = list(self.storage.list_blobs(bucket, prefix=f"{folder}/"))
        return {each.name.rpartition("/")[2]: each.download_as_text().splitlines() for each in blobs}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    script = tmp_path_factory.mktemp("server") / "server.py"
    script.write_text(SERVER, encoding="utf-8")
    return (sys.executable, "-S", str(script))


@pytest.fixture(scope="module")
def simulator(server: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    home: Path = tmp_path_factory.mktemp("cloud")
    with Simulator(home, speed=SPEED, images={"mine": server}) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def cloud(simulator: Simulator, wait_until: Callable[..., Any]) -> Iterator[Cloud]:
    cloud = Cloud(simulator, wait_until)
    yield cloud
    cloud.close()


@pytest.fixture(scope="session")
def connect() -> Callable[..., Cloud]:
    """Give what connects to another simulator; whoever calls it closes what it gives."""
    return Cloud


@pytest.fixture
def faults(simulator: Simulator) -> Iterator[Any]:
    """The switches, all of them off again afterwards."""
    faults = simulator.faults
    yield faults
    fresh = type(faults)()
    for each in type(faults).__attrs_attrs__:
        if not each.name.startswith("_"):
            setattr(faults, each.name, getattr(fresh, each.name))


@pytest.fixture(scope="session")
def parent() -> str:
    return PARENT
