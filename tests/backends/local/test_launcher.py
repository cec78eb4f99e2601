"""The fork server's client, in moments that are hard to meet from outside."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from modeldeploy.backends.local.launcher import Launcher, Order

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
