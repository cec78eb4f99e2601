"""A simulator from its start to its end: what it needs, what it leaves, and how several live beside each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.simulate.azureml import Simulator

SERVE = """
import sys, threading
from pathlib import Path
import json
from modeldeploy.simulate.azureml import Simulator
simulator = Simulator(speed=2000, state_dir=Path(sys.argv[1])).start()
site = simulator.subscription_id, simulator.resource_group, simulator.workspace
print(json.dumps({"url": simulator.url, "token": simulator.credential.get_token().token, "site": site}), flush=True)
if len(sys.argv) < 3:
    threading.Event().wait()
"""


def test_a_simulator_starts_and_stops_without_the_sdk(tmp_path: Path):
    """The SDK takes seconds to import, and a caller may speak plain HTTP."""
    text = (
        "import sys; from modeldeploy.simulate.azureml import Simulator\n"
        "with Simulator(): pass\n"
        "assert 'azure.ai.ml' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", text], check=True, env=_environment(), timeout=60)


def test_stopping_ends_processes_threads_and_directories(tmp_path: Path):
    before = set(threading.enumerate())
    children = psutil.Process().children(recursive=True)
    with Simulator(speed=2000, state_dir=tmp_path) as simulator:
        assert list(tmp_path.iterdir()) != []
        url = simulator.url
        simulator.start()
        assert simulator.url == url
    simulator.stop()
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= before
    assert psutil.Process().children(recursive=True) == children
    with pytest.raises(ConfigurationError, match="not running"):
        simulator.url  # noqa: B018 - asking for it is what is tested


def test_a_speed_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="speed"):
        Simulator(speed=0)


def test_two_simulators_know_nothing_of_each_other(simulator: Simulator, cloud: Any):
    with Simulator(speed=2000) as other:
        theirs = other.credential.get_token().token
        assert other.workspace == simulator.workspace
        assert other.subscription_id != simulator.subscription_id
        assert cloud.ask("GET", "", Authorization=f"Bearer {theirs}").status == 401
        url = f"{other.url}{cloud.site}"
        assert cloud.ask("GET", url, Authorization=f"Bearer {theirs}").status == 404


def test_the_sdk_finds_both_storages_and_real_ones():
    from azure.ai.ml.constants import _common

    with Simulator() as one, Simulator() as other:
        for each in (one, other):
            each.client_options()
        template = _common.STORAGE_ACCOUNT_URLS["AzureBlob"]
        accounts = [each._settings.site.account for each in (one, other)]
        assert [template.format(account, "core.windows.net") for account in accounts] == [
            f"{each.url}/{account}" for each, account in zip((one, other), accounts, strict=True)
        ]
        assert template.format("real", "core.windows.net") == "https://real.blob.core.windows.net"
    assert _common.STORAGE_ACCOUNT_URLS["AzureBlob"].format(accounts[0], "x") == f"https://{accounts[0]}.blob.x"


def test_no_client_and_no_child_takes_an_ended_simulator_for_the_cloud():
    with Simulator() as simulator:
        client = simulator.client()
        assert os.environ["AZUREML_CURRENT_CLOUD"] == simulator.client_options()["cloud"]
        assert client.workspaces.get(simulator.workspace).location == simulator.region
    assert "AZUREML_CURRENT_CLOUD" not in os.environ


def _started(directory: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, str(directory), *more], stdout=subprocess.PIPE, env=_environment()
    )


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[3])
    kept = {name: value for name, value in os.environ.items() if name != "AZUREML_CURRENT_CLOUD"}
    return {**kept, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_one_that_nobody_stops_ends_with_its_program(tmp_path: Path):
    with _started(tmp_path, "forget") as process:
        assert process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_processes_die_with_a_simulator_that_is_killed(tmp_path: Path, wait_until: Any, cloud: Any):
    with _started(tmp_path) as process:
        try:
            found = _serving(process, cloud, tmp_path, wait_until)
        finally:
            process.kill()
            process.wait()
        _gone, alive = psutil.wait_procs(found, timeout=10)
        assert found != []
        assert alive == []
    # The next one sweeps up what that one could not.
    with Simulator(state_dir=tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def _serving(process: subprocess.Popen[bytes], cloud: Any, directory: Path, wait_until: Any) -> list[psutil.Process]:
    assert process.stdout is not None
    there = type(cloud)(_Elsewhere(json.loads(process.stdout.readline())), directory, wait_until)
    there.serve("blue")
    there.close()
    return psutil.Process(process.pid).children()


class _Elsewhere:
    """A simulator in another process, as far as the tests' cloud needs one."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.url, self._token = said["url"], said["token"]
        self.subscription_id, self.resource_group, self.workspace = said["site"]
        self.credential = self

    def get_token(self) -> Any:
        return type("Token", (), {"token": self._token})
