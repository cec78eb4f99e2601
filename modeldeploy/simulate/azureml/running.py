"""A simulator from its start to its stop: the server, what runs behind it, and the order in which all of it ends."""

from __future__ import annotations

import contextlib

from modeldeploy.simulate.azureml.app import App
from modeldeploy.simulate.azureml.catalogue import routes
from modeldeploy.simulate.azureml.door import Door
from modeldeploy.simulate.azureml.parts import Parts
from modeldeploy.simulate.azureml.sdk import Credential
from modeldeploy.simulate.azureml.settings import Settings
from modeldeploy.simulate.launcher import Launcher
from modeldeploy.simulate.server import Server


class Running:
    """A server with everything behind it; ``close`` ends it all."""

    def __init__(self, settings: Settings) -> None:
        with contextlib.ExitStack() as stack:
            server = Server()
            stack.callback(server.close)
            launcher = Launcher()
            stack.callback(launcher.close)
            self.url = f"http://127.0.0.1:{server.port}"
            self.parts = Parts.make(settings, self.url, launcher)
            stack.callback(self._end)
            self.credential = Credential(self.parts.tokens, self.url)
            server.start(_app(self.parts))
            self.parts.world.go("keeper", self.parts.yard.keep)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End what goes on, every process, and the server, in this order."""
        self._stack.close()

    def _end(self) -> None:
        self.parts.world.stopping.set()
        # The processes first: whoever waits for their answers is free then.
        self.parts.jobs.stop()
        self.parts.yard.close()
        self.parts.mirroring.close()
        self.parts.world.stop()


def _app(parts: Parts) -> App:
    door = Door(parts.world, routes(parts), parts.tokens)
    return App(parts.world, door, parts.storage, parts.front, parts.workspace.discovery)
