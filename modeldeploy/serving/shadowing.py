"""Copies of requests for a shadow: sent after the caller has the answer, bounded, and without any way back to the caller."""

from __future__ import annotations

import asyncio

from modeldeploy.serving import comparing
from modeldeploy.serving.group import Group
from modeldeploy.serving.messages import SHADOW_HEADER, Request, Response
from modeldeploy.serving.meters import COPY

OUTSTANDING = 100
"""Copies of one endpoint's requests that may be under way; one more is dropped, and counted."""
HELD = 64 << 20
"""Bytes that they may hold together."""

_REFUSED = 400


class Shadows:
    """The copies of one endpoint's requests that are under way, until they are compared."""

    def __init__(self) -> None:
        self.outstanding = 0
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # Decoding takes one thread at a time, so that however much differs, one core at most is busy with it.
        self._helper = asyncio.Semaphore(1)

    def send(self, group: Group, request: Request, within: float, answer: Response | None) -> None:
        """Send a copy soon; ``answer`` is what it will be held against, None when it cannot be."""
        size = len(request.body) + (len(answer.body) if answer else 0)
        if self.outstanding >= OUTSTANDING or self._bytes + size > HELD:
            group.meter.dropped()
            return
        self.outstanding += 1
        self._bytes += size
        # In a later turn of the loop: in this one the caller's answer is written.
        asyncio.get_running_loop().call_soon(self._start, group, request, within, answer, size)

    def _start(self, group: Group, request: Request, within: float, answer: Response | None, size: int) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(group, request, within, answer))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(done, size))

    def _end(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self.outstanding -= 1
        self._bytes -= size
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler({"message": "a copy failed", "exception": task.exception()})

    async def _carry(self, group: Group, request: Request, within: float, answer: Response | None) -> None:
        copy = Request(
            request.method, request.path, request.query, {**request.headers, SHADOW_HEADER: "1"}, request.body
        )
        group.meter.copied()
        got = await group.submit(copy, within, COPY)
        if answer is not None and max(answer.status, got.status) < _REFUSED:
            group.meter.compared(agree=await self._agree(answer, got))

    async def _agree(self, answer: Response, got: Response) -> bool:
        if comparing.same_bytes(answer, got):
            return True
        async with self._helper:
            return await asyncio.to_thread(comparing.same_values, answer, got)
