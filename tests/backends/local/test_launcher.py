"""The fork server's client, in moments that are hard to meet from outside."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys

import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from modeldeploy.backends.local.begun import begin
from modeldeploy.backends.local.launcher import Launcher, Order
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked workers exist on Linux only")


def test_a_start_that_is_cancelled_in_the_moment_of_its_answer_is_cancelled():
    """Else whoever stops a revision waits for ever for a worker that has just been started."""

    async def run() -> None:
        launcher = Launcher(lambda _text: None)
        server = launcher.warm(sys.executable, "")
        order = Order("nowhere", "nowhere", "iris", "v1", (), sys.executable, "", 1, fork=True)
        ready, log = os.pipe()
        starting = asyncio.create_task(launcher.start(order, ready=ready, log=log))
        await asyncio.sleep(0)  # it has sent its order
        (answer,) = server._answers.values()
        answer.set_result(os.getpid())
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        os.close(ready)
        os.close(log)
        await launcher.close()

    asyncio.run(asyncio.wait_for(run(), 60))


LOADED = """
import sys
from modeldeploy.backends.local import forkserver

for path in sys.argv[1:]:
    forkserver._load_container(path)
print("pandas" in sys.modules)
"""


@pytest.mark.parametrize(("container", "shared"), [("pandas", "True"), ("array", "False")])
def test_pandas_is_loaded_before_the_fork_for_a_model_that_is_given_tables(tmp_path, container, shared):
    """Each worker would else spend half a second on it, and keep a copy of its own."""
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
    example = table if container == "pandas" else table.to_numpy()
    model = LinearRegression().fit(example, [0.0, 1.0, 2.0])
    made = package(model, name="line", version="1.0.0", example=example, store=Store(tmp_path))
    command = [sys.executable, "-c", LOADED, "nowhere", str(made.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == shared


@pytest.mark.parametrize("kernel", ["new", "old", "another system's"])
def test_the_end_of_a_fork_server_is_noted_and_another_one_begun(monkeypatch, kernel):
    if kernel == "old":
        monkeypatch.setattr(os, "pidfd_open", _not_there)
    elif kernel != "new":
        monkeypatch.delattr(os, "pidfd_open")

    async def run() -> None:
        launcher = Launcher(lambda _text: None, {(sys.executable, ""): begin(sys.executable, "")})
        server = launcher.warm(sys.executable, "")
        assert launcher.pids() == [server.pid]
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        assert server.gone
        assert not psutil.pid_exists(server.pid)
        assert launcher.warm(sys.executable, "") is not server
        (pid,) = launcher.pids()
        await launcher.close()
        assert not psutil.pid_exists(pid)

    asyncio.run(asyncio.wait_for(run(), 60))


def _not_there(_pid):
    raise OSError(errno.ENOSYS, "no such call")


def test_a_worker_is_spawned_where_no_fork_server_can_be():
    said = []

    async def run() -> None:
        launcher = Launcher(said.append)
        order = Order("nowhere", "nowhere", "iris", "v1", (), "/no/such/python", "sklearn", 1, fork=True)
        ready, log = os.pipe()
        with pytest.raises(FileNotFoundError):  # nor can this
            await launcher.start(order, ready=ready, log=log)
        os.close(ready)
        os.close(log)
        assert launcher.pids() == []
        await launcher.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert [text.partition(":")[0] for text in said] == ["fork server for sklearn"]
