"""A simulator from its start to its end: what it needs, what it leaves, how one is reached over TLS, and how several live beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.api_core import exceptions as told
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import aiplatform_v1 as v1

from modeldeploy.errors import ConfigurationError
from modeldeploy.simulate.processes import free_port
from modeldeploy.simulate.vertex import Simulator

SERVE = """
import sys, threading
from pathlib import Path
from modeldeploy.simulate.processes import free_port
from modeldeploy.simulate.vertex import Simulator
simulator = Simulator(Path(sys.argv[1])).start()
print(simulator.address, flush=True)
threading.Event().wait()
"""


class Fixed(Credentials):
    """Credentials whose token never changes."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    def refresh(self, request: object) -> None:
        raise AssertionError("nothing is to be refreshed")

    @property
    def valid(self) -> bool:
        return True

    def before_request(self, request: object, method: str, url: str, headers: dict[str, str]) -> None:
        self.apply(headers)


def _leaf_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.is_alive()}


def test_stopping_ends_processes_threads_ports_and_directories(connect, wait_until, server, tmp_path):
    before, children = _leaf_threads(), psutil.Process().children(recursive=True)
    with Simulator(tmp_path, speed=2000, images={"mine": server}) as simulator:
        cloud = connect(simulator, wait_until)
        cloud.serve()
        uri = cloud.put("slow.jsonl", b"1\n")
        cloud.job(cloud.model(), [uri], model_parameters={"sleep": 3600})
        assert len(psutil.Process().children(recursive=True)) > len(children)
        assert list(tmp_path.iterdir()) != []
        address, url = simulator.address, simulator.storage_url
        assert simulator.start() is simulator
        assert (simulator.address, simulator.storage_url) == (address, url)
        cloud.close()
    simulator.close()
    assert list(tmp_path.iterdir()) == []
    assert psutil.Process().children(recursive=True) == children
    listening = {
        each.laddr.port for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_LISTEN
    }
    assert {int(address.rpartition(":")[2]), int(url.rpartition(":")[2])}.isdisjoint(listening)
    # A channel of the client ends its own thread a moment after it was closed.
    wait_until(lambda: _leaf_threads() <= before, 10)
    with pytest.raises(ConfigurationError, match="not running"):
        simulator.address  # noqa: B018 - asking for it is what is tested


@pytest.mark.parametrize("setting", [{"speed": 0}, {"batch_files": "other"}], ids=["speed", "batch_files"])
def test_a_setting_that_makes_no_sense_is_refused(setting: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        Simulator(**setting)


def test_two_simulators_know_nothing_of_each_other(cloud: Any, connect: Any, wait_until: Any, tmp_path: Path):
    with Simulator(tmp_path, speed=2000) as other:
        assert other.project_number != cloud.simulator.project_number
        theirs, name = connect(other, wait_until), cloud.endpoint()
        own = name.replace(cloud.simulator.project_number, other.project_number)
        with pytest.raises(told.NotFound):
            theirs.get(own)
        with pytest.raises(told.PermissionDenied):
            theirs.get(name)
        assert theirs.storage.lookup_bucket("storage-tests") is None
        theirs.close()


def test_over_tls_a_client_with_credentials_is_let_in_and_one_without_is_not(tmp_path: Path, parent: str):
    """Over plain text the clients send no token at all, so only this tells whether they would."""
    with Simulator(tmp_path, speed=2000, tls=True) as simulator:

        def listed(credentials: Any) -> list[Any]:
            with v1.EndpointServiceClient(transport=simulator.transport("EndpointService", credentials)) as client:
                return list(client.list_endpoints({"parent": parent}, timeout=30))

        assert listed(Fixed("secret-token")) == []
        assert simulator.authorized == 1
        with pytest.raises(told.GoogleAPICallError, match="credentials"):
            listed(Fixed(" "))
        with pytest.raises(Exception, match=r"credentials|refreshed"):
            listed(AnonymousCredentials())
        assert simulator.authorized == 1


def test_a_killed_simulator_leaves_nothing_and_the_next_one_sweeps_up(tmp_path: Path, wait_until: Any):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"127.0.0.1:")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    with Simulator(tmp_path):
        assert left[0] not in list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_importing_the_simulator_imports_none_of_the_clouds_packages():
    text = (
        "import sys, modeldeploy.simulate.vertex\n"
        "heavy = ('google.cloud.', 'google.api', 'google.auth', 'google.protobuf', 'grpc', 'proto', 'werkzeug')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    found = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, env=environment, timeout=60)
    assert found.stdout.strip() == b"[]"


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(connect, wait_until, tmp_path, monkeypatch):
    """Nothing listens at the proxy's port, so whoever asks there fails."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Simulator(tmp_path, speed=2000) as simulator:
        cloud = connect(simulator, wait_until)
        assert cloud.get(cloud.endpoint()).display_name == "here"
        assert cloud.put("x", b"data") == "gs://data/x"
        cloud.close()


def test_the_package_s_own_operation_waits_for_a_deployment(cloud: Any):
    """Whoever does wait by the package's means gets the service's own answers."""
    endpoint = cloud.endpoint()
    done = cloud.begin_deploy(endpoint, cloud.model(), "1").result(timeout=60)
    assert done.deployed_model.id == "1"
