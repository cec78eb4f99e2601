"""The container entry as a real process, by every contract, over loopback."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.serving.__main__ import _parser, find_bundle, main

LABELS = [0, 2]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]]
NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
TIMEOUT = 30


class Slow:
    """Says that it began, then waits until it may end; the sign is a file."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def predict(self, frame):
        import time
        from pathlib import Path

        if (frame["x"] < 0).any():
            Path(self.gate + ".entered").touch()
            deadline = time.monotonic() + 20
            while not Path(self.gate).exists() and time.monotonic() < deadline:
                time.sleep(0.005)
        return frame["x"] * 2


@pytest.fixture(scope="module")
def server(serve, iris):
    return serve("--bundle", iris.path, AIP_HEALTH_ROUTE="/aip/health", AIP_PREDICT_ROUTE="/v1/endpoints/1:predict")


@pytest.fixture(scope="module")
def array_server(serve, iris_array):
    return serve("--bundle", iris_array.path)


# SageMaker.


def test_sagemaker_ping_is_200_and_empty(server):
    answer = server.ask("GET", "/ping")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "body",
    [
        {"instances": ROWS},
        {"inputs": RECORDS},
        {"dataframe_split": {"columns": NAMES, "data": ROWS}},
        {"dataframe_records": RECORDS},
        ROWS,
    ],
)
def test_sagemaker_invocations_take_json(server, body):
    assert server.ask("POST", "/invocations", body).json == {"predictions": LABELS}


def test_sagemaker_invocations_take_and_give_csv(server):
    answer = server.ask(
        "POST", "/invocations", b"5.1,3.5,1.4,0.2\n6,3,5,2\n", content_type="text/csv", accept="text/csv"
    )
    assert (answer.status, answer.body) == (200, b"0\n2\n")
    assert answer.headers["content-type"].startswith("text/csv")


def test_sagemaker_batch_lines_come_back_as_lines(server):
    body = b"\n".join(json.dumps(row).encode() for row in ROWS)
    assert server.ask("POST", "/invocations", body, content_type="application/jsonlines").body == b"0\n2\n"


# Vertex AI.


def test_vertex_routes_are_where_the_variables_say(server):
    assert server.ask("GET", "/aip/health").status == 200
    answer = server.ask("POST", "/v1/endpoints/1:predict", {"instances": RECORDS, "parameters": {}})
    assert answer.json == {"predictions": LABELS}


def test_vertex_predictions_have_the_length_and_order_of_the_instances(server, array_server):
    many = [ROWS[at % 2] for at in range(500)]
    assert server.ask("POST", "/v1/endpoints/1:predict", {"instances": many}).json["predictions"] == LABELS * 250
    probabilities = np.array(array_server.ask("POST", "/invocations", {"instances": many}).json["predictions"])
    assert probabilities.shape == (500, 3)
    assert probabilities.argmax(axis=1).tolist() == LABELS * 250


# Azure ML.


def test_azure_is_alive_scores_and_echoes_the_request_id(server):
    assert server.ask("GET", "/").body == b"Healthy"
    answer = server.ask("POST", "/score", {"data": ROWS}, x_request_id="4711")
    assert answer.json == {"predictions": LABELS}
    assert answer.headers["x-request-id"] == "4711"


# Open Inference Protocol V2, by a client that nobody here wrote.


@pytest.fixture
def triton(server):
    client = pytest.importorskip("tritonclient.http").InferenceServerClient(f"{server.host}:{server.port}")
    yield client
    client.close()


def test_triton_sees_the_server_and_the_model(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("iris")
    assert triton.is_model_ready("iris", "1.0.0")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata("iris")
    assert [each["name"] for each in metadata["inputs"]] == NAMES
    assert metadata["outputs"] == [{"name": "prediction", "datatype": "INT64", "shape": [-1]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_triton_infers_in_json_and_binary_both_ways(triton, binary_in, binary_out, packed):
    import tritonclient.http as tc

    table = np.array(ROWS)
    columns = {"anything": table} if packed else dict(zip(NAMES, table.T, strict=True))
    tensors = []
    for name, array in columns.items():
        tensors.append(tc.InferInput(name, list(array.shape), "FP64"))
        tensors[-1].set_data_from_numpy(np.ascontiguousarray(array), binary_data=binary_in)
    output = tc.InferRequestedOutput("prediction", binary_data=binary_out)
    answer = triton.infer("iris", tensors, outputs=[output], request_id="7")
    assert answer.as_numpy("prediction").tolist() == LABELS
    assert answer.get_response()["id"] == "7"


def test_triton_is_told_what_is_wrong(triton):
    import tritonclient.http as tc
    from tritonclient.utils import InferenceServerException

    tensor = tc.InferInput("x", [1, 3], "FP64")
    tensor.set_data_from_numpy(np.ones((1, 3)))
    with pytest.raises(InferenceServerException, match="sepal length"):
        triton.infer("iris", [tensor])


# What every place needs.


def test_metrics_are_what_prometheus_reads(server):
    from prometheus_client.parser import text_string_to_metric_families

    server.ask("POST", "/invocations", {"instances": ROWS})
    text = server.ask("GET", "/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counts = {sample.labels["outcome"]: sample.value for sample in families["modeldeploy_requests"].samples}
    assert counts["ok"] >= 1
    assert families["modeldeploy_request_duration_seconds"].type == "histogram"


DEEP = b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
KEYS = b"{" + b",".join(b'"k%d":1' % at for at in range(100_000)) + b"}"
ROW = b'{"instances":[[%s,3,4,1]]}'
CORPUS = {
    "nothing": (b"", 400),
    "bad JSON": (b"{", 400),
    "depth 1e5": (DEEP, 400),
    "1e5 keys": (KEYS, 400),
    "invalid UTF-8": (b'{"instances":["\xff\xfe"]}', 400),
    "half a surrogate": (b'{"instances":["\\ud800"]}', 400),
    "NaN": (ROW % b"NaN", 400),
    "Infinity": (ROW % b"-Infinity", 400),
    "1e999": (ROW % b"1e999", 400),
    "a key twice": (b'{"instances":[[1,2,3,4]],"instances":[[5,6,7,8]]}', 400),
    "a key twice in a row": (b'{"instances":[{"a":1,"a":2}]}', 400),
    "trailing data": (b"[[1,2,3,4]] x", 400),
    "null": (ROW % b"null", 422),
    "a huge integer": (ROW % b"12345678901234567", 422),
    "text": (ROW % b'"5"', 422),
    "a flag": (ROW % b"true", 422),
    "a list": (ROW % b"[1]", 422),
    "an object": (ROW % b"{}", 422),
    "a row without values": (b'{"instances":[[]]}', 422),
    "ragged": (b'{"instances":[[1,2,3,4],[1,2,3]]}', 422),
    "a null byte": (b"\x00", 400),
}


@pytest.mark.row(13)
@pytest.mark.parametrize("path", ["/invocations", "/score", "/v2/models/iris/infer"])
@pytest.mark.parametrize(("body", "status"), CORPUS.values(), ids=CORPUS)
def test_a_wrong_body_is_the_callers_fault_and_shows_nothing_of_ours(server, path, body, status):
    answer = server.ask("POST", path, body)
    assert answer.status == (400 if path.endswith("infer") else status)
    assert answer.json.keys() == {"error", "field"}
    assert len(answer.body) < 1500
    assert not any(
        word in answer.body for word in (b"Traceback", b".py", b"site-packages", str(Path.home()).encode() + b"/")
    )
    assert server.ask("POST", path, body).body == answer.body, "the same body always gets the same answer"


def test_the_server_outlives_all_of_it(server):
    assert server.ask("POST", "/invocations", {"instances": ROWS}).json == {"predictions": LABELS}


def test_smuggling_truncation_and_excess_end_the_connection(server):
    both = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert server.raw(both).count(b"HTTP/1.1 ") == 1
    huge = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (65 << 20)
    assert server.raw(huge).startswith(b"HTTP/1.1 413")
    short = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{}"
    assert server.raw(short, half_close=True) == b""


def test_a_body_too_large_is_413_with_and_without_a_length(serve, iris):
    small = serve("--bundle", iris.path, "--max-body-mb", "0.01")
    body = b" " * 20_000
    assert small.ask("POST", "/invocations", body).status == 413
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert small.raw(head + b"%x\r\n%b\r\n" % (len(body), body)).startswith(b"HTTP/1.1 413")
    assert small.stop() == 0


def test_each_of_many_callers_at_once_gets_its_own_answer(array_server):
    """Contracts, sizes and good and bad are mixed; what they share is the batch."""
    rng = np.random.default_rng(0)
    tables = [np.array(ROWS)[rng.integers(0, 2, rng.integers(1, 6))] for _each in range(200)]

    def ask(at: int, connection: http.client.HTTPConnection) -> None:
        table = tables[at]
        body = {"instances": table.tolist() if at % 5 else [*table.tolist(), ["x"] * 4]}
        connection.request(
            "POST", "/invocations", json.dumps(body), {"content-type": "application/json", "x-request-id": str(at)}
        )
        answer = connection.getresponse()
        data = json.loads(answer.read())
        assert answer.getheader("x-request-id") == str(at)
        if at % 5 == 0:
            assert answer.status == 422
            return
        assert np.array(data["predictions"]).argmax(axis=1).tolist() == [0 if row[0] == 5.1 else 2 for row in table]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(array_server.host, array_server.port, timeout=TIMEOUT)
        for at in range(number, len(tables), 10):
            ask(at, connection)
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(client, range(10)))


# Beginning and end.


@pytest.mark.row(8)
def test_sigterm_answers_what_is_in_flight_after_readiness_failed(serve, store, tmp_path, wait_until):
    import pandas as pd

    gate = tmp_path / "gate"
    bundle = package(Slow(str(gate)), name="slow", version="1.0.0", example=pd.DataFrame({"x": [1]}), store=store)
    server = serve("--bundle", bundle.path, "--trust", bundle.digest)
    body = b'{"instances":[{"x":-4}]}'
    head = (
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    probe = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    health = socket.create_connection((server.host, server.port), timeout=TIMEOUT)
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT) as busy:
        busy.sendall(head + body)
        wait_until(Path(f"{gate}.entered").exists, TIMEOUT)
        health.sendall(probe)
        assert health.recv(4096).startswith(b"HTTP/1.1 200"), "health is answered while a prediction runs"
        server.process.send_signal(signal.SIGTERM)

        answer = b"HTTP/1.1 200"
        while answer.startswith(b"HTTP/1.1 200"):
            # A 200 from just before may already say that the connection ends.
            if b"connection: close" in answer:
                health.close()
                health = socket.create_connection((server.host, server.port), timeout=TIMEOUT)
            health.sendall(probe)
            answer = health.recv(4096)
        health.close()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer
        gate.touch()
        received = b""
        while chunk := busy.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in received
    assert received.endswith(b'{"predictions":[-8]}')
    assert server.process.wait(TIMEOUT) == 0


def test_an_archive_is_served_as_azure_and_sagemaker_start_it(serve, iris, tmp_path):
    iris.archive(tmp_path / "model.tar.gz")
    server = serve("serve", AZUREML_MODEL_DIR=str(tmp_path))
    assert server.ask("GET", "/v2/models/iris").status == 200
    assert server.stop() == 0


def look(environ: dict[str, str], scratch: Path, *arguments: object) -> Path:
    return find_bundle(_parser().parse_args([*map(str, arguments)]), environ, scratch)


def test_the_bundle_is_found_where_each_place_puts_it(iris, tmp_path):
    shutil.copytree(iris.path, tmp_path / "mount" / "iris")
    archive = iris.archive(tmp_path / "model.tar.gz")
    assert look({}, tmp_path, "--bundle", iris.path) == iris.path
    assert Bundle.open(look({}, tmp_path / "a", "--archive", archive)).digest == iris.digest
    assert look({"AIP_STORAGE_URI": f"file://{iris.path}"}, tmp_path) == iris.path
    assert look({"AZUREML_MODEL_DIR": str(tmp_path / "mount")}, tmp_path) == tmp_path / "mount" / "iris"
    assert Bundle.open(look({"AZUREML_MODEL_DIR": str(archive)}, tmp_path / "b")).digest == iris.digest


def test_a_directory_of_several_bundles_is_not_guessed_at(iris, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(iris.path, tmp_path / name)
    with pytest.raises(ConfigurationError, match="more than one bundle"):
        look({"AZUREML_MODEL_DIR": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["--bundle", "/nonexistent"], {}, "is not a bundle"),
        (["--archive", "/nonexistent"], {}, "there is no archive"),
        ([], {"AZUREML_MODEL_DIR": "/nonexistent"}, "no bundle in"),
        ([], {"AIP_STORAGE_URI": "s3://bucket/model"}, "is neither a directory here"),
        (["--bundle", "x", "--host", "192.0.2.1", "--auth", "none"], {}, "cannot serve on"),
    ],
)
def test_what_cannot_be_served_is_said_in_words_and_exit_1(arguments, environ, words, caplog):
    assert main(["--port", "0", *arguments], environ) == 1
    assert words in caplog.text


def test_a_port_that_is_no_number_is_refused(caplog):
    assert main([], {"AIP_HTTP_PORT": "http"}) == 1
    assert "AIP_HTTP_PORT is 'http'" in caplog.text


def test_pickled_code_nobody_vouched_for_is_not_loaded(store):
    import pandas as pd

    bundle = package(Slow("x"), name="slow-untrusted", version="1.0.0", example=pd.DataFrame({"x": [1]}), store=store)
    command = [sys.executable, "-m", "modeldeploy.serving", "--port", "0", "--bundle", str(bundle.path)]
    ended = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 1
    assert b"nobody here vouched for" in ended.stderr
    assert b"Traceback" not in ended.stderr
