"""Our side of the front process: started again when it dies, told everything again when it starts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from modeldeploy.backends.local.begun import BegunFront, begin_front
from modeldeploy.backends.local.fleet import back_off
from modeldeploy.backends.local.launcher import end_of
from modeldeploy.errors import BackendError, ModelDeployError, UnavailableError

_LINE_LIMIT = 64 << 20
_ANSWER_S = 30.0
_HEALTHY_S = 5.0
_CHECK_S = 5.0


class FrontProcess:
    """Keeps a front alive and passes commands on; the first one may have been begun."""

    def __init__(
        self,
        *,
        started: Callable[[], Coroutine[Any, Any, None]],
        hung: Callable[[str], None],
        lost: Callable[[str, str], None],
        report: Callable[[str], None],
        begun: BegunFront | None = None,
    ) -> None:
        self.pid = 0
        self._begun = begun
        self._started = started
        self._hung = hung
        self._lost = lost
        self._report = report
        self._writer: asyncio.StreamWriter | None = None
        self._sockets: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._keeper = asyncio.create_task(self._keep())

    async def call(self, do: str, *, answer_within: float = _ANSWER_S, **arguments: Any) -> Any:
        """Give a command and wait for its result; commands take effect in the order of the calls."""
        return await self.answer(self.send(do, **arguments), within=answer_within)

    async def answer(self, sent: asyncio.Future[Any], *, within: float = _ANSWER_S) -> Any:
        """Wait for the result of what was sent."""
        async with asyncio.timeout(within):  # wait_for may swallow a cancellation before Python 3.12
            return await sent

    def send(self, do: str, **arguments: Any) -> asyncio.Future[Any]:
        """Give a command now; its result comes later."""
        if self._writer is None:
            message = "the front is not running"
            raise UnavailableError(message, retry_after=0.1, hint="it is being started; try again")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(orjson.dumps({"id": number, "do": do, **arguments}) + b"\n")
        return answer

    def listen(self, endpoint: str, listener: socket.socket, access: dict[str, Any]) -> asyncio.Future[Any]:
        """Hand over a listening socket; we keep it too."""
        try:
            if self._sockets is not None:
                socket.send_fds(self._sockets, [b"."], [listener.fileno()])
        except OSError as error:
            message = "the front ended"
            raise UnavailableError(message, retry_after=0.1, hint="it is being started; try again") from error
        return self.send("listen", endpoint=endpoint, access=access)

    async def _keep(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                code = await self._live()
                self._report(f"front: ended with {code}")
            except (OSError, ModelDeployError) as error:
                self._report(f"front: {error}")
            failures = 1 if time.monotonic() - began > _HEALTHY_S else failures + 1
            await asyncio.sleep(back_off(failures))

    async def _live(self) -> int:
        begun, self._begun = self._begun or begin_front(), None
        self.pid = begun.pid
        ended = asyncio.create_task(end_of(self.pid))
        reader, self._writer = await asyncio.open_connection(sock=begun.control, limit=_LINE_LIMIT)
        self._sockets = begun.sockets
        # Not one after the other: a front may die while it is being told what to do.
        tasks = [asyncio.create_task(work) for work in (self._listen(reader), self._check(ended), self._started())]
        try:
            return await asyncio.shield(ended)
        finally:
            for task in tasks:
                task.cancel()
            self._lose()
            await ended

    async def _check(self, ended: asyncio.Task[int]) -> None:
        """Kill a front that does not answer; another one takes over its sockets."""
        while True:
            await asyncio.sleep(_CHECK_S)
            try:
                await self.call("ping", answer_within=_CHECK_S)
            except TimeoutError:
                self._report(f"front: did not answer for {_CHECK_S:g} s; replacing it")
                if not ended.done():
                    os.kill(self.pid, signal.SIGKILL)
            except ModelDeployError:  # it ended; whoever waits for that acts
                return

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = orjson.loads(line)
            if message.get("event") == "hung":
                self._hung(message["worker"])
                continue
            if message.get("event") == "lost":
                self._lost(message["endpoint"], message["worker"])
                continue
            answer = self._answers.pop(message["id"], None)
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(BackendError(f"the front failed: {message['error']}"))
            else:
                answer.set_result(message["result"])

    def _lose(self) -> None:
        """Close our ends; the front sees that and ends, if it has not."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(UnavailableError("the front ended", retry_after=0.1))
                answer.exception()  # looked at, for nobody may be waiting any more

    async def close(self) -> None:
        """End the front."""
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
