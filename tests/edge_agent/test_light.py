"""An agent is light: it loads what it needs and nothing else, and leaves nothing on the device but its home."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil

# What a device has, beside the standard library.
ALLOWED = {
    "attr",
    "attrs",
    "cryptography",
    "_cffi_backend",
    "_openssl",
    "httptools",
    "modeldeploy",
    "numpy",
    "onnxruntime",
    "orjson",
    "uvloop",
}
# The modules of ours that a device never needs.
UPSTAIRS = ("engine", "backends", "handles", "registry", "observe", "simulate", "scoring", "config", "spi")
CODE = """
import sys, json
before = set(sys.modules)
from modeldeploy.edge_agent import __main__
from modeldeploy.edge_agent.child import preload, can_fork
preload()
from modeldeploy.edge.keys import SigningKey
SigningKey(bytes(32)).public
names = set(sys.modules) - before
print(json.dumps({"modules": sorted(names), "can_fork": can_fork(), "stdlib": sorted(sys.stdlib_module_names)}))
"""


def loaded() -> dict[str, list[str]]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_an_agent_imports_what_a_device_has_and_nothing_else():
    found = loaded()
    roots = {name.partition(".")[0] for name in found["modules"]} - set(found["stdlib"])
    strangers = {
        name for name in roots - ALLOWED if not name.startswith(("_distutils_hack", "cython_runtime", "_cython"))
    }
    assert strangers == set()
    ours = {name for name in found["modules"] if name.startswith("modeldeploy.")}
    assert not [name for name in ours if name.split(".")[1] in UPSTAIRS]


def test_an_agent_has_one_thread_so_that_it_may_fork():
    assert loaded()["can_fork"] is (sys.platform == "linux")


def test_an_agent_and_its_server_share_their_libraries(device, fleet, wait_until):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    server = wait_until(device.server)
    if sys.platform == "linux":
        # What a forked server has to itself: a tenth of what an interpreter of its own would take.
        assert server.memory_full_info().uss < 60e6
        assert psutil.Process(device.process.pid).memory_full_info().pss < 80e6


def test_telemetry_leaves_no_files_in_a_home(device, fleet, monkeypatch, tmp_path):
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    fleet.want("v1")
    device.start()
    device.runs("v1")
    assert device.serves() == "v1"
    device.stop()
    assert list(home.rglob("*")) == []


def test_an_agent_writes_to_its_own_home_alone(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    device.stop()
    names = {path.name for path in device.home.iterdir()}
    assert names == {".lock", "active.json", "address.json", "desired.json", "incoming", "slots"}
    assert {path.name for path in (device.home / "slots").iterdir()} == {"a", "a.digest"}
    assert not device.home.stat().st_mode & 0o077
