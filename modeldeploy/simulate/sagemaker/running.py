"""A simulator from its start to its stop: the server, what runs behind it, and the order in which all of it ends."""

from __future__ import annotations

import contextlib

from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.sagemaker import app, cloudwatch, others
from modeldeploy.simulate.sagemaker.control import Control
from modeldeploy.simulate.sagemaker.furniture import Furniture
from modeldeploy.simulate.sagemaker.housekeeping import Housekeeping
from modeldeploy.simulate.sagemaker.operations import operations
from modeldeploy.simulate.sagemaker.parts import Parts
from modeldeploy.simulate.sagemaker.runtime import Runtime
from modeldeploy.simulate.sagemaker.settings import Settings
from modeldeploy.simulate.server import Server


class Running:
    """A server with everything behind it; ``close`` ends it all."""

    def __init__(self, settings: Settings) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(others.forget, settings.site)
            server = Server()
            stack.callback(server.close)
            launcher = Launcher()
            stack.callback(launcher.close)
            self.url = f"http://127.0.0.1:{server.port}"
            self._parts = Parts.make(settings, self.url, launcher)
            stack.callback(self._end)
            furniture = Furniture(self._parts.cloud)
            server.start(_app(self._parts, furniture))
            cloudwatch.install(settings.site, settings.clock, self._parts.store)
            furniture.bucket()
            self._parts.world.go("housekeeping", _housekeeping(self._parts).run)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End what goes on, every container, and the server, in this order."""
        self._stack.close()

    def _end(self) -> None:
        parts = self._parts
        parts.world.stopping.set()
        for job in list(parts.jobs.items.values()):
            job.stop.set()
        # The containers first: whoever waits for their answers is free then.
        parts.yard.close()
        parts.shadows.close()
        parts.asynchronous.close()
        parts.world.stop()
        parts.cloud.close()


def _app(parts: Parts, furniture: Furniture) -> app.App:
    settings = parts.settings
    runtime = Runtime(parts.world, parts.endpoints, parts.asking, parts.shadows, parts.captures, parts.asynchronous)
    return app.App(
        Control(operations(parts)),
        runtime,
        settings.faults,
        settings.credentials,
        settings.site.account,
        others.application(),
        furniture.asked,
        settings.max_body,
    )


def _housekeeping(parts: Parts) -> Housekeeping:
    return Housekeeping(parts.world, parts.logbook, parts.alarms, parts.captures, parts.yard, parts.endpoints)
