"""A thread that says again and again that a driver lives, while that driver waits for a slow call."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Self

from modeldeploy.errors import FencedError, ModelDeployError


class Heartbeat:
    """Calls ``beat`` every so many seconds until it is stopped, or until a FencedError says that there is nothing to keep.

    A process that is frozen freezes its heartbeat too, which is the point of it.
    """

    def __init__(self, beat: Callable[[], None], every: float) -> None:
        self._beat = beat
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="modeldeploy heartbeat", daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End, and wait for a beat in hand."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                # A journal that cannot be written now may be at the next beat; the driver meets the trouble itself.
                with contextlib.suppress(sqlite3.Error):
                    self._beat()
            except FencedError:
                return
            except ModelDeployError:
                continue
