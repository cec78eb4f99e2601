"""The model server by itself, as it runs in a container: HTTP on one thread, predictions on another.

The predict thread takes whatever waits as one batch; the event loop meanwhile answers health and metadata, so that a long prediction
never looks like a dead container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import attrs

from modeldeploy.serving.app import App
from modeldeploy.serving.entrance import Entrance
from modeldeploy.serving.http import HttpServer
from modeldeploy.serving.limits import Limits
from modeldeploy.serving.messages import Request, Response, failure, unavailable
from modeldeploy.serving.meters import Meter, Reading, exposition

_log = logging.getLogger(__name__)
_ALL = 100


@attrs.define(slots=True, eq=False)
class _Job:
    request: Request
    future: asyncio.Future[Response]
    since: float


class Standalone:
    """One App on one socket; ``serve`` returns after SIGTERM once everything in flight is answered.

    With ``handover`` its successor accepts on the same socket by then.
    """

    def __init__(self, limits: Limits | None = None, *, handover: bool = False) -> None:
        self._handover = handover
        self._limits = limits or Limits()
        self._app: App | None = None
        self._meter = Meter("")
        self._waiting: deque[_Job] = deque()
        self._in_hand = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._stop = asyncio.Event()

    def metrics(self) -> str:
        """Write the metrics in Prometheus' text format."""
        name = "" if self._app is None else self._app.name
        queued = len(self._waiting)
        return exposition([Reading(name, self._meter, weight=_ALL, queued=queued, inflight=self._in_hand)])

    @property
    def outcomes(self) -> dict[str, int]:
        """Count the answers so far: ``ok``, ``refused`` (the caller's mistake) and ``error``."""
        return dict(self._meter.outcomes)

    async def serve(
        self, app: App, sock: socket.socket, *, grace: float, announce: Callable[[], None], entrance: Entrance
    ) -> int:
        """Serve until SIGTERM or SIGINT: readiness fails first, what is in flight is answered within ``grace`` seconds, then it ends."""
        loop = self._loop = asyncio.get_running_loop()
        self._app = app
        self._meter.revision = app.revision
        for number in (signal.SIGTERM, signal.SIGINT):
            _on_signal(loop, number, self._stop.set)
        thread = threading.Thread(target=self._predict_all, args=(app,), daemon=True, name="predict")
        thread.start()
        server = HttpServer(entrance.wrap(self._handle), self._limits, gate=entrance.gate, steady=entrance.is_plain)
        await server.start(sock)
        announce()
        await self._stop.wait()
        app.ready = False
        await server.drain(grace, handover=self._handover)
        self._end_thread()
        return 0

    def _handle(self, request: Request) -> asyncio.Future[Response]:
        app, future = self._app, self._loop.create_future()
        now = app.respond_now(request) if app is not None else unavailable("not ready")
        if now is not None:
            future.set_result(now)
        elif len(self._waiting) >= self._limits.max_pending:
            self._meter.shed["queue"] += 1
            future.set_result(unavailable("too many requests wait for the model"))
        else:
            self._submit(_Job(request, future, time.perf_counter()))
        return future

    def _submit(self, job: _Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def _predict_all(self, app: App) -> None:
        while jobs := self._take():
            try:
                answers = app.respond_many([job.request for job in jobs])
            except Exception:  # noqa: BLE001 - the thread outlives any request
                _log.exception("%d requests could not be answered", len(jobs))
                answers = [failure(500, "the server failed") for _job in jobs]
            # One wake-up of the loop for the whole batch; a loop that gave up waiting is closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._settle, jobs, answers)

    def _take(self) -> list[_Job]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            jobs = list(self._waiting)
            self._waiting.clear()
            self._in_hand = len(jobs)
        return jobs

    def _settle(self, jobs: list[_Job], answers: list[Response]) -> None:
        now = time.perf_counter()
        self._in_hand = max(0, self._in_hand - len(jobs))
        for job, answer in zip(jobs, answers, strict=True):
            self._meter.record(answer.status, now - job.since)
            if not job.future.done():
                job.future.set_result(answer)

    def _end_thread(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()


def _on_signal(loop: asyncio.AbstractEventLoop, number: int, act: Callable[[], None]) -> None:
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(act))
