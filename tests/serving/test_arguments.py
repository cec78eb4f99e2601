"""The container entry: what it refuses, and a server process that asks for keys."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import attrs
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving import arguments
from modeldeploy.serving.__main__ import _parser, main
from modeldeploy.serving.audit_file import verify
from modeldeploy.serving.keyring import Keyring

ROWS = [[5.1, 3.5, 1.4, 0.2]]


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return Keyring(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def token(ring):
    return ring.create("ana")[1]


def read(*given: object, **environ: str):
    return arguments.read(_parser().parse_args([*map(str, given)]), environ)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_an_address_that_others_reach_is_refused_without_keys(host):
    with pytest.raises(
        ConfigurationError,
        match=r"modeldeploy keys create NAME --file keys\.json, and add --keys keys\.json.*--auth none",
    ):
        read("--host", host)


def test_a_key_file_without_a_live_key_is_as_good_as_none(tmp_path):
    Keyring(tmp_path / "keys.json").create("late", days=1e-9)
    for file in (tmp_path / "none.json", tmp_path / "keys.json"):
        with pytest.raises(ConfigurationError, match=f"keys create NAME --file {file}; or"):
            read("--host", "0.0.0.0", "--keys", file)


def test_it_is_open_where_somebody_said_so(ring, token):
    assert not read("--host", "0.0.0.0", "--auth", "none").keyed
    assert not read("--host", "0.0.0.0", MODELDEPLOY_AUTH="none").keyed
    assert not read().keyed


def test_keys_are_asked_for_wherever_there_is_a_key_file(ring, token):
    assert read("--keys", ring.path).keyed
    assert read("--host", "0.0.0.0", MODELDEPLOY_KEYS=str(ring.path)).keyed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--auth", "none", "--keys", "keys.json"], "leave one of them out"),
        (["--auth", "keys"], "keys are asked for, and there is no API key"),
        (["--rate", "-1"], "rate limit"),
        (["--burst", "5"], "without a rate"),
    ],
)
def test_what_does_not_fit_is_refused(given, words):
    with pytest.raises(ConfigurationError, match=words):
        read(*given)


def test_a_wrong_word_in_the_environment_is_named():
    with pytest.raises(ConfigurationError, match="auth is 'off'"):
        read(MODELDEPLOY_AUTH="off")


def test_nothing_is_bound_before_it_is_refused(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--host", "0.0.0.0", "--port", str(port), "--bundle", "x"], {}) == 1
    assert "there is no API key" in caplog.text
    assert "cannot serve on" not in caplog.text


def test_the_entry_says_so_in_one_line_and_ends_with_1():
    command = [sys.executable, "-m", "modeldeploy.serving", "--host", "0.0.0.0", "--bundle", "x"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "make one with: modeldeploy keys create" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def server(serve, iris, ring, token, audit):
    environ = {"AIP_HEALTH_ROUTE": "/aip/health", "AIP_PREDICT_ROUTE": "/aip/predict"}
    served = serve("--bundle", iris.path, "--host", "0.0.0.0", "--keys", ring.path, "--audit", audit, **environ)
    return attrs.evolve(served, host="127.0.0.1")


def test_a_container_with_keys_serves_who_shows_one(server, token):
    for path in ("/invocations", "/score", "/aip/predict"):
        assert server.ask("POST", path, {"instances": ROWS}).status == 401
        assert server.ask("POST", path, {"instances": ROWS}, authorization=f"Bearer {token}").json == {
            "predictions": [0]
        }


def test_its_health_is_open_under_every_name_of_the_platforms(server):
    for path in ("/", "/ping", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/aip/health"):
        assert server.ask("GET", path).status == 200, path
        assert server.ask("POST", path, {}).status == 401, path


def test_a_platform_may_call_it_by_any_name(server, token):
    answer = server.ask(
        "POST", "/invocations", {"instances": ROWS}, authorization=f"Bearer {token}", host="endpoint.example"
    )
    assert answer.status == 200


def test_a_client_of_the_v2_protocol_can_send_the_key(server, token):
    tc = pytest.importorskip("tritonclient.http")
    import numpy as np

    client = tc.InferenceServerClient(f"127.0.0.1:{server.port}")
    tensor = tc.InferInput("x", [1, 4], "FP64")
    tensor.set_data_from_numpy(np.array(ROWS))
    headers = {"Authorization": f"Bearer {token}"}
    assert client.infer("iris", [tensor], headers=headers).as_numpy("prediction").tolist() == [0]
    client.close()


def test_what_was_asked_is_on_the_disk_when_it_has_ended(serve, iris, ring, token, tmp_path):
    log = tmp_path / "audit.jsonl"
    server = serve("--bundle", iris.path, "--keys", ring.path, "--audit", log)
    server.ask("POST", "/invocations", {"instances": ROWS * 3}, authorization=f"Bearer {token}")
    server.ask("POST", "/invocations", {"instances": "wrong"}, authorization=f"Bearer {token}")
    server.ask("GET", "/metrics")
    assert server.stop() == 0
    lines = [json.loads(line) for line in log.read_bytes().splitlines()][1:]
    assert [(line["endpoint"], line["path"], line["status"], line["rows"]) for line in lines] == [
        ("iris", "/invocations", 200, 3), ("iris", "/invocations", 400, None), ("iris", "/metrics", 401, None)
    ]  # fmt: skip
    assert verify(log).lines == 4
