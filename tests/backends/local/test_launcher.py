"""The fork server's client, in moments that are hard to meet from outside."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

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
