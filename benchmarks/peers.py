"""What is measured: how each server and each batch tool is started, asked and read; and the environments that peers live in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import attrs
import numpy as np
import orjson
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "peers"
ENVIRONMENTS = HERE.parent / "build" / "peers"
# A model file is read by what wrote it.
SHARED = ("scikit-learn", "onnxruntime", "joblib", "numpy")

QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "LITSERVE_TELEMETRY": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "",
    "MODELDEPLOY_PROGRESS": "off",
}
"""One native thread for each process, so that all have the same; no telemetry; and bytecode is kept, as what is installed has it."""


# ---------------------------------------------------------------- bodies

JSON = {"Content-Type": "application/json"}
Rows = NDArray[np.float64]


@attrs.frozen
class Form:
    """How rows are asked for over HTTP, and how the labels are read from the answer."""

    name: str
    path: str
    ask: Callable[[Rows], tuple[bytes, Mapping[str, str]]]
    read: Callable[[bytes], NDArray[np.int64]]


def _named(key: str) -> Callable[[Rows], tuple[bytes, Mapping[str, str]]]:
    return lambda rows: (orjson.dumps({key: rows.tolist()}), JSON)


def _predictions(body: bytes) -> NDArray[np.int64]:
    """Read ``{"predictions": ...}``; MLflow names the output of an ONNX model inside."""
    found = orjson.loads(body)["predictions"]
    return np.ravel(found["prediction"] if isinstance(found, dict) else found)


def _v2(rows: Rows) -> tuple[bytes, Mapping[str, str]]:
    tensor = {"name": "input", "shape": rows.shape, "datatype": "FP64", "data": rows.ravel().tolist()}
    return orjson.dumps({"inputs": [tensor]}), JSON


def _v2_binary(rows: Rows) -> tuple[bytes, Mapping[str, str]]:
    data = rows.tobytes()
    datatype = {4: "FP32", 8: "FP64"}[rows.itemsize]
    tensor = {"name": "input", "shape": rows.shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + data, headers


def _v2_binary_read(body: bytes) -> NDArray[np.int64]:
    """Read one tensor of int64 zeros and ones, which lies behind the JSON."""
    head = body[: body.rindex(b"}") + 1]
    output = orjson.loads(head)["outputs"][0]
    return np.frombuffer(body[len(head) :], np.int64, np.prod(output["shape"]))


INSTANCES = Form("json", "/predict", _named("instances"), _predictions)
OURS = Form("json", "/invocations", _named("instances"), _predictions)
OURS_BINARY = Form("binary", "/v2/models/bench/infer", _v2_binary, _v2_binary_read)
BENTO = Form("json", "/predict", _named("rows"), lambda body: np.array(orjson.loads(body)))
MLFLOW = Form("json", "/invocations", _named("inputs"), _predictions)
OIP = Form(
    "json", "/v2/models/bench/infer", _v2, lambda body: np.array(orjson.loads(body)["outputs"][0]["data"], np.int64)
)
ECHO = Form("json", "/", _named("instances"), lambda _body: np.empty(0, np.int64))


# ---------------------------------------------------------------- servers and tools


@attrs.frozen
class Program:
    """A command line with places to fill: python, bin, here, model, port, folder, source, target; ``prepare`` is run once for each model."""

    name: str
    command: str
    environment: str = ""
    """Empty for the one that measures: ours, and the limits."""
    prepare: str = ""
    kind: str = "peer"

    def line(self, **places: object) -> list[str]:
        """Give the command."""
        return [word.format(**self._places(), **places) for word in self.command.split()]

    def prepare_line(self, **places: object) -> list[str]:
        return [word.format(**self._places(), **places) for word in self.prepare.split()]

    def _places(self) -> dict[str, object]:
        python = python_of(self.environment)
        return {"python": python, "bin": python.parent, "here": PROGRAMS}

    def environ(self, **more: str) -> dict[str, str]:
        """Give its environment: no telemetry, its own programs first."""
        path = f"{python_of(self.environment).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {key: value for key, value in os.environ.items() if self.kind != "peer" or key != "PYTHONPATH"}
        added = {"PYTHONPATH": str(PROGRAMS)} if self.kind == "peer" else {}
        return {**kept, **QUIET, **added, "PATH": path, **more}


@attrs.frozen
class Server(Program):
    form: Form = INSTANCES
    more: tuple[Form, ...] = ()
    """Other forms, asked with 100 rows."""


OURS_NAME, TWO_WORKERS, BARE_HTTP = "modeldeploy", "modeldeploy, 2 workers", "bare HTTP (limit)"
FASTAPI, FASTAPI_2W = "FastAPI, tutorial", "FastAPI, 2 workers"
BATCHING = ("LitServe, batching", "BentoML, batching", "MLServer, batching")
_PACKAGE = "{python} {here}/modeldeploy_prepare.py {model} {example}"
_UVICORN = "{bin}/uvicorn --app-dir {here} --host 127.0.0.1 --port {port}"
_BENTO = "{bin}/bentoml serve --working-dir {here} --host 127.0.0.1 --port {port}"
SERVERS = (
    Server(OURS_NAME, "{python} {here}/modeldeploy_server.py {port} 1", prepare=_PACKAGE, kind="ours", form=OURS, more=(OURS_BINARY,)),
    Server(TWO_WORKERS, "{python} {here}/modeldeploy_server.py {port} 2", prepare=_PACKAGE, kind="ours", form=OURS, more=(OURS_BINARY,)),
    Server(BARE_HTTP, "{python} {here}/bare_http.py {port}", kind="limit", form=ECHO),
    Server(FASTAPI, f"{_UVICORN} fastapi_tutorial:app", "fastapi"),
    Server(FASTAPI_2W, f"{_UVICORN} fastapi_server:app --workers 2 --no-access-log", "fastapi"),
    Server("LitServe", "{python} {here}/litserve_server.py {port}", "litserve"),
    Server("LitServe, batching", "{python} {here}/litserve_server.py {port} batch", "litserve"),
    Server("BentoML", f"{_BENTO} bentoml_server:Plain", "bentoml", form=BENTO),
    Server("BentoML, batching", f"{_BENTO} bentoml_server:Batching", "bentoml", form=BENTO),
    Server("MLServer", "{python} {here}/mlserver_server.py {port} {folder}", "mlserver", form=OIP),
    Server("MLServer, batching", "{python} {here}/mlserver_server.py {port} {folder} batch", "mlserver", form=OIP),
    Server(
        "MLflow",
        "{bin}/mlflow models serve --model-uri {prepared} --host 127.0.0.1 --port {port} --env-manager local --workers 2",
        "mlflow",
        "{python} {here}/mlflow_prepare.py {model} {prepared}",
        form=MLFLOW,
    ),
    Server("Ray Serve", "{python} {here}/ray_server.py {port} {folder}", "ray", form=INSTANCES),
)  # fmt: skip

OURS_BATCH, BARE_LOOP = "modeldeploy", "bare loop, a thread for each core (limit)"
_FILES = "{model} {source} {target}"
TOOLS = (
    Program(OURS_BATCH, "{python} {here}/modeldeploy_batch.py {source} {target}", prepare=_PACKAGE, kind="ours"),
    Program(BARE_LOOP, f"{{python}} {{here}}/bare_batch.py loop {_FILES}", kind="limit"),
    Program("pandas", f"{{python}} {{here}}/pandas_batch.py {_FILES}", "tables"),
    Program("Polars, streaming", f"{{python}} {{here}}/polars_batch.py {_FILES}", "tables"),
    Program("DuckDB", f"{{python}} {{here}}/duckdb_batch.py {_FILES}", "tables"),
    Program("Ray Data", f"{{python}} {{here}}/ray_batch.py {_FILES} {{folder}}", "ray"),
    Program("Spark", f"{{python}} {{here}}/spark_batch.py {_FILES} {{folder}}", "spark"),
)
KNOWN = ("fastapi", "litserve", "bentoml", "mlserver", "mlflow", "ray", "tables", "spark")


def chosen(programs: tuple[Program, ...], peers: list[str]) -> list[Program]:
    """Keep ours, the limits, and the peers that were asked for."""
    return [each for each in programs if each.kind != "peer" or each.environment in peers]


# ---------------------------------------------------------------- environments


def python_of(environment: str) -> Path:
    if not environment:
        return Path(sys.executable)
    return ENVIRONMENTS / environment / "bin" / "python"


def parse(text: str) -> list[str]:
    """Read ``all``, ``none`` or names; Spark is left out where there is no Java."""
    names = {"all": list(KNOWN), "none": []}.get(text, text.replace(",", " ").split())
    for name in names:
        if name not in KNOWN:
            message = f"bench: PEERS knows no {name!r}; use all, none, or some of: {' '.join(KNOWN)}"
            raise SystemExit(message)
    if text == "all" and shutil.which("java") is None:
        names.remove("spark")
    return names


def install(name: str, say: Callable[[str], None]) -> None:
    """Make an environment once, and again when its list changed."""
    wanted = PROGRAMS / f"{name}.txt"
    shared = [f"{package}=={version(package)}" for package in SHARED]
    stamp = ENVIRONMENTS / name / ".stamp"
    content = wanted.read_text() + "\n".join(shared)
    if stamp.exists() and stamp.read_text() == content:
        return
    say(f"installing {name} into build/peers/{name}")
    shutil.rmtree(ENVIRONMENTS / name, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / name], check=True)
    pip = [python_of(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*pip, "-r", wanted, *shared], check=True)
    stamp.write_text(content)


def versions(names: list[str]) -> dict[str, str]:
    """Say what is pinned for each peer."""
    texts = {name: (PROGRAMS / f"{name}.txt").read_text() for name in names}
    return {
        name: ", ".join(line.replace("==", " ") for line in text.splitlines() if line and not line.startswith("#"))
        for name, text in texts.items()
    }
