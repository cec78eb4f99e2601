"""Copies of calls for the deployment that traffic is mirrored to; nobody waits for their answers."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import attrs

from modeldeploy.simulate.azureml.asking import Asking, Call, RefusedError
from modeldeploy.simulate.azureml.endpoint import Deployment, Endpoint
from modeldeploy.simulate.azureml.instances import Fleet

_THREADS = 4
_WAITING = 256
_HUNDRED = 100


@attrs.define(eq=False)
class Mirroring:
    """Copies calls; one that comes while too many wait is not copied."""

    asking: Asking
    _threads: ThreadPoolExecutor = attrs.field(
        factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="mirror")
    )
    _room: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(_WAITING))

    def copy(self, endpoint: Endpoint, call: Call) -> None:
        """Copy a call as often as the endpoint's mirror says."""
        for name, percent in endpoint.mirror.items():
            deployment = endpoint.deployments.get(name.lower())
            fleet = None if deployment is None else deployment.fleet
            drawn = random.random() * _HUNDRED < percent  # noqa: S311 - a share, no secret
            if deployment is not None and fleet is not None and drawn and self._room.acquire(blocking=False):
                self._threads.submit(self._send, endpoint, deployment, fleet, call)

    def _send(self, endpoint: Endpoint, deployment: Deployment, fleet: Fleet, call: Call) -> None:
        try:
            with contextlib.suppress(RefusedError):
                self.asking.ask(endpoint, deployment, fleet, call)
        finally:
            self._room.release()

    def close(self) -> None:
        """Give up what waits, and wait until the rest has ended."""
        self._threads.shutdown(cancel_futures=True)
