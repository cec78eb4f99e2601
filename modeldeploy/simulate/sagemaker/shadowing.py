"""Copies of requests for shadow variants: nobody waits for them, and nobody sees their answers."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import attrs

from modeldeploy.simulate.sagemaker.asking import Asking, Target
from modeldeploy.simulate.sagemaker.errors import ServiceError
from modeldeploy.simulate.sagemaker.fleets import Variant
from modeldeploy.simulate.sagemaker.invocation import Invocation

_THREADS = 4
_WAITING = 256


@attrs.define(eq=False)
class Shadows:
    """Sends copies beside; what there is no room for is not copied."""

    asking: Asking
    _threads: ThreadPoolExecutor = attrs.field(
        factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="shadow"), init=False
    )
    _room: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(_WAITING), init=False)

    def copy(self, target: Target, invocation: Invocation) -> None:
        """Copy a request to the shadows of the fleet that answered it, by the ratio of their weights to the variant's."""
        for shadow in target.fleet.shadows:
            if _wanted(shadow, target.variant) and self._room.acquire(blocking=False):
                self._threads.submit(self._send, Target(target.endpoint, target.fleet, shadow), invocation)

    def close(self) -> None:
        """Wait for those under way."""
        self._threads.shutdown(cancel_futures=True)

    def _send(self, target: Target, invocation: Invocation) -> None:
        try:
            with contextlib.suppress(ServiceError):
                self.asking.ask(target, invocation)
        finally:
            self._room.release()


def _wanted(shadow: Variant, production: Variant) -> bool:
    share = shadow.weight / production.weight if production.weight else 1.0
    return share >= 1 or random.random() < share  # noqa: S311 - no secret
