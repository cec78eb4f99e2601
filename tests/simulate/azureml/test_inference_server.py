"""The host of entry scripts, by the rules of the public inference server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from modeldeploy.simulate.azureml.programs import INFERENCE_SERVER, PORT
from modeldeploy.simulate.processes import free_port

RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

@rawhttp
def run(request):
    if request.method == "GET":
        return AMLResponse(dict(request.args), 200, json_str=True)
    if request.get_data() == b"teapot":
        return AMLResponse("no coffee", 418, response_headers={"X-Kind": "teapot", "Content-Type": "text/plain"})
    if request.headers.get("x-break"):
        return AMLResponse(b"broken", 503)
    return AMLResponse(request.get_data()[::-1], 200, response_headers={"content-type": "application/octet-stream"})
"""
TEXT = """
loaded = []
def init():
    loaded.append(1)
def run(body):
    if body == "none":
        return None
    if body == "set":
        return {1, 2}
    return {"type": type(body).__name__, "loaded": loaded}
"""


@pytest.fixture
def host(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Callable[[str], Any]]:
    """Give what starts the host with a script and gives what asks it."""
    processes: list[subprocess.Popen[bytes]] = []
    http = urllib3.PoolManager()

    def start(text: str, **environment: str) -> Any:
        (tmp_path / "score.py").write_text(text)
        port = free_port()
        argv = [str(port) if each == PORT else each for each in INFERENCE_SERVER.argv]
        env = {"AML_APP_ROOT": str(tmp_path), "AZUREML_ENTRY_SCRIPT": "score.py", **environment}
        processes.append(subprocess.Popen(argv, env=env, stdout=subprocess.PIPE))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(http, url) or processes[-1].poll() is not None, 10, what="the host")

        def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
            return http.request(method, f"{url}{path}", body=body, headers=headers, retries=False, timeout=10)

        ask.process = processes[-1]  # type: ignore[attr-defined]
        return ask

    yield start
    http.clear()
    for each in processes:
        each.kill()
        each.communicate()


def _answers(http: urllib3.PoolManager, url: str) -> bool:
    try:
        return http.request("GET", url, retries=False, timeout=1).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_a_body_comes_as_text_after_one_init(host: Any):
    ask = host(TEXT)
    for _number in range(2):
        answer = ask("POST", "/score", b"hello")
        assert (answer.status, answer.json()) == (200, {"type": "str", "loaded": [1]})
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert answer.headers["x-request-id"]


def test_nothing_is_an_empty_object(host: Any):
    assert host(TEXT)("POST", "/score", b"none").json() == {}


def test_what_cannot_be_written_is_an_error_of_the_script(host: Any):
    answer = host(TEXT)("POST", "/score", b"set")
    assert (answer.status, answer.headers["x-ms-run-function-failed"]) == (500, "True")
    assert "message" in answer.json()


def test_a_body_that_is_no_text_is_refused(host: Any):
    assert host(TEXT)("POST", "/score", b"\xff").status == 400


def test_other_methods_and_places_are_refused(host: Any):
    ask = host(TEXT)
    assert [ask("PUT", "/score", b"").status, ask("POST", "/other", b"").status, ask("GET", "/other").status] == [
        405,
        404,
        404,
    ]
    assert (ask("GET", "/").status, ask("GET", "/").data) == (200, b"Healthy")


def test_a_script_may_take_the_request_as_it_came(host: Any):
    ask = host(RAW)
    assert ask("POST", "/score", b"\xff\x00").data == b"\x00\xff"
    assert ask("GET", "/score?a=1").json() == {"a": "1"}


def test_a_script_may_choose_status_and_headers(host: Any):
    answer = host(RAW)("POST", "/score", b"teapot")
    assert (answer.status, answer.data, answer.headers["X-Kind"]) == (418, b"no coffee", "teapot")
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["x-ms-run-function-failed"] == "False"


def test_a_status_of_500_and_above_counts_as_a_failure(host: Any):
    answer = host(RAW)("POST", "/score", b"x", **{"x-break": "1"})
    assert (answer.status, answer.headers["x-ms-run-function-failed"]) == (503, "True")


def test_a_script_that_cannot_begin_ends_the_host(host: Any):
    ask = host("def init():\n    raise OSError('no weights')\n")
    assert ask.process.wait(10) == 3
    assert b"OSError: no weights" in ask.process.stdout.read()


def test_an_image_has_no_modeldeploy_but_the_uploaded_one(host: Any):
    ask = host("import importlib.util\ndef run(data):\n    return importlib.util.find_spec('modeldeploy') is None\n")
    installed = subprocess.run(
        [sys.executable, "-P", "-c", "import importlib.util; print(importlib.util.find_spec('modeldeploy') is None)"],
        env={}, capture_output=True, check=True, cwd="/",
    )  # fmt: skip
    assert str(ask("POST", "/score", b"").json()) == installed.stdout.decode().strip()
